import { type NdArray, ndarray } from '../array/index.js';

/** Checked: [1 or N, 1, H, W] with numbers in [0, 1]. @throws RangeError that says what is wrong. */
export function checkMask(mask: NdArray<'float32'>, count: number, [height, width]: readonly [number, number]): void {
  const [n, c, h, w] = mask.shape;
  if (mask.shape.length !== 4 || (n !== 1 && n !== count) || c !== 1 || h !== height || w !== width)
    throw new RangeError(`mask: expected [1, 1, ${height}, ${width}] as the image, got [${mask.shape}]`);
  if (!mask.data.every((x) => x >= 0 && x <= 1))
    throw new RangeError('mask: expected numbers from 0 (keep) to 1 (repaint)');
}

/** 1 where at least half is to be repainted, else 0. */
export const binary = (mask: NdArray<'float32'>): NdArray<'float32'> =>
  ndarray(
    mask.data.map((x) => (x >= 0.5 ? 1 : 0)),
    mask.shape,
  );

/** The mask at the latents' resolution, its nearest pixel each, as torch.nn.functional.interpolate takes it. */
export function shrunk(mask: NdArray<'float32'>, height: number, width: number): NdArray<'float32'> {
  const [n, , h, w] = mask.shape;
  const data = Float32Array.from({ length: n * height * width }, (_, at) => {
    const [i, y, x] = [Math.floor(at / (height * width)), Math.floor(at / width) % height, at % width];
    return mask.data[(i * h + Math.floor((y * h) / height)) * w + Math.floor((x * w) / width)];
  });
  return ndarray(data, [n, 1, height, width]);
}

/** The image [N, C, H, W] with grey (0 in [-1, 1]) where the mask [1 or N, 1, H, W] says repaint. */
export function masked(image: NdArray<'float32'>, mask: NdArray<'float32'>): NdArray<'float32'> {
  const [, channels, height, width] = image.shape;
  const area = height * width;
  const one = mask.shape[0] === 1;
  const data = image.data.map((value, at) => {
    const n = one ? 0 : Math.floor(at / (channels * area));
    return mask.data[n * area + (at % area)] < 0.5 ? value : 0;
  });
  return ndarray(data, image.shape);
}

/** `count` copies of each image of a batch, one after the other, as diffusers repeats prompts and pictures. */
export function repeatEach<A extends NdArray>(array: A, count: number): A {
  if (count === 1) return array;
  const [n, ...shape] = array.shape;
  const size = array.data.length / n;
  const data = new (array.data.constructor as Float32ArrayConstructor)(array.data.length * count);
  for (let i = 0; i < n * count; i++) {
    const from = Math.floor(i / count) * size;
    data.set((array.data as Float32Array).subarray(from, from + size), i * size);
  }
  return { ...array, shape: [n * count, ...shape], data };
}

/** One image for all, or one for each. @throws RangeError for another number. */
export function spread(array: NdArray<'float32'>, count: number, what: string): NdArray<'float32'> {
  const [n] = array.shape;
  if (count % n !== 0) throw new RangeError(`${what}: ${n} for ${count} images, expected 1 or ${count}`);
  return repeatEach(array, count / n);
}
