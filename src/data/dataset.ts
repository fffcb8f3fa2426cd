import { type NdArray, type Shape, sizeOf, toFloat32 } from '../array/index.js';

export type ImageShape = readonly [channels: number, height: number, width: number];

/** Labelled pictures of one size. */
export interface Dataset {
  readonly name: string;
  readonly length: number;
  readonly shape: ImageShape;
  readonly classNames: readonly string[];
  /** What was left out because it could not be read, with the reason. */
  readonly skipped?: readonly string[];
  /** Writes picture `i`, [C, H, W] in [-1, 1], to `out` from `offset` on. */
  fill(i: number, out: Float32Array, offset: number): void | Promise<void>;
  /** The class of picture `i`, 0..classNames.length-1. */
  label(i: number): number;
}

export interface ArrayDatasetOptions {
  name?: string;
  /** By default '0', '1' ... up to the largest label. */
  classNames?: readonly string[];
  /** Which axis of a four-axis array holds the colours; by default the one of length 1 or 3. */
  layout?: 'NCHW' | 'NHWC';
}

/** Where classes have no names; more are a sign of labels that are none. */
const mostClasses = 2 ** 16;

const fail = (name: string, what: string): never => {
  throw new RangeError(`data set '${name}': ${what}`);
};

function layoutOf(name: string, shape: Shape, asked?: 'NCHW' | 'NHWC'): 'NCHW' | 'NHWC' {
  const [first, last] = [shape[1], shape[3]].map((axis) => axis === 1 || axis === 3);
  if (asked) return asked;
  if (first === last)
    fail(name, `images [${shape}]: either axis 1 or axis 3 must be 1 or 3 channels; name the layout if both are`);
  return first ? 'NCHW' : 'NHWC';
}

/** Bytes are 0..255, anything else must be in [-1, 1] already. */
function checkedImages(
  name: string,
  images: NdArray,
): { data: Uint8Array | Float32Array; scale: number; shift: number } {
  if (images.dtype === 'uint8') return { data: images.data as Uint8Array, scale: 1 / 127.5, shift: -1 };
  if (!images.dtype.startsWith('float') && images.dtype !== 'bfloat16')
    return fail(name, `images of ${images.dtype}, expected uint8 (0..255) or floats (-1..1)`);
  const { data } = toFloat32(images);
  const odd = data.findIndex((x) => !(x >= -1 && x <= 1));
  if (odd >= 0) fail(name, `pixel ${data[odd]} at position ${odd}, floats must be in -1..1`);
  return { data, scale: 1, shift: 0 };
}

function checkedLabels(name: string, labels: NdArray | undefined, length: number): Int32Array {
  if (!labels) return new Int32Array(length);
  if (labels.data.length !== length || !/int/.test(labels.dtype))
    fail(name, `labels ${labels.dtype} [${labels.shape}], expected one integer for each of ${length} images`);
  return Int32Array.from(labels.data as ArrayLike<number | bigint> as ArrayLike<number>, Number);
}

/**
 * Pictures held in memory.
 * @param images [N, H, W], [N, C, H, W] or [N, H, W, C]; uint8 0..255, or floats in [-1, 1].
 * @param labels [N] integers; without them every picture is of class 0.
 * @throws RangeError for another shape, dtype or range.
 */
export function arrayDataset(images: NdArray, labels?: NdArray, options: ArrayDatasetOptions = {}): Dataset {
  const { name = 'arrays' } = options;
  const { shape } = images;
  if (shape.length < 3 || shape.length > 4 || sizeOf(shape) === 0)
    fail(name, `images [${shape}], expected [N, H, W], [N, C, H, W] or [N, H, W, C], none of them 0`);
  const interleaved = shape.length === 4 && layoutOf(name, shape, options.layout) === 'NHWC';
  const [height, width] = interleaved ? shape.slice(1, 3) : shape.slice(-2);
  const channels = shape.length === 3 ? 1 : shape[interleaved ? 3 : 1];
  const { data, scale, shift } = checkedImages(name, images);
  const classes = checkedLabels(name, labels, shape[0]);
  const most = classes.reduce((a, b) => Math.max(a, b), 0);
  if (!options.classNames && most >= mostClasses) fail(name, `label ${most} out of range 0..${mostClasses - 1}`);
  const classNames = options.classNames ?? Array.from({ length: most + 1 }, (_, i) => String(i));
  const odd = classes.find((label) => label < 0 || label >= classNames.length);
  if (odd !== undefined) fail(name, `label ${odd} out of range 0..${classNames.length - 1}`);

  const plane = height * width;
  // Where in the stored picture the next pixel of a plane, and the next plane, lie.
  const [pixelStep, planeStep] = interleaved ? [channels, 1] : [1, plane];
  const fill = (i: number, out: Float32Array, offset: number): void => {
    for (let c = 0; c < channels; c++) {
      let from = i * channels * plane + c * planeStep;
      const to = offset + c * plane;
      for (let p = 0; p < plane; p++, from += pixelStep) out[to + p] = data[from] * scale + shift;
    }
  };
  return { name, length: shape[0], shape: [channels, height, width], classNames, fill, label: (i) => classes[i] };
}

/** Some of the pictures: the first `count`, or those listed. */
export function subset(dataset: Dataset, which: number | readonly number[]): Dataset {
  const indices =
    typeof which === 'number' ? Array.from({ length: Math.min(which, dataset.length) }, (_, i) => i) : which;
  const odd = indices.find((i) => !(Number.isInteger(i) && i >= 0 && i < dataset.length));
  if (odd !== undefined) fail(dataset.name, `picture ${odd} out of range 0..${dataset.length - 1}`);
  const { name, shape, classNames } = dataset;
  return {
    name,
    shape,
    classNames,
    length: indices.length,
    fill: (i, out, offset) => dataset.fill(indices[i], out, offset),
    label: (i) => dataset.label(indices[i]),
  };
}
