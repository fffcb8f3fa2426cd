import { concat, type Tensor } from '../tensor/index.js';

/**
 * Mirrors `width` rows and columns of x [N, C, H, W] beyond each edge, the edge itself not repeated: torch's ReflectionPad2d.
 * @throws RangeError when height or width is not larger than `width`.
 */
export function reflectionPad2d(x: Tensor, width = 1): Tensor {
  if (x.rank !== 4 || x.shape[2] <= width || x.shape[3] <= width)
    throw new RangeError(
      `reflectionPad2d: [${x.shape}], expected [N, C, H, W] with more than ${width} rows and columns`,
    );
  return [2, 3].reduce((y, axis) => {
    const last = y.shape[axis] - 1;
    const before = y.slice(axis, 1, width + 1).flip(axis);
    const after = y.slice(axis, last - width, last).flip(axis);
    return concat([before, y, after], axis);
  }, x);
}
