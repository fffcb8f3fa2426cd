import { type NdArray, ndarray } from '../array/index.js';
import type { Attributes, OnnxGraph, OnnxNode } from './onnx.js';
import { Session, toDeviceValue, toHost } from './session.js';

/** onnxruntime's own operators for images whose channels lie in blocks, [N, C / block, H, W, block]. */
export const BLOCKED_DOMAIN = 'com.microsoft.nchwc';

let found: Promise<number | undefined> | undefined;

/**
 * Channels of a block in onnxruntime's blocked convolutions: 16 with AVX-512, 8 on other processors; undefined where
 * it has none (in browsers, or a build without them). It does not say, so a small convolution is tried with each.
 */
export function convBlock(): Promise<number | undefined> {
  found ??= typeof process !== 'undefined' && process.versions?.node ? probe() : Promise.resolve(undefined);
  return found;
}

async function probe(): Promise<number | undefined> {
  try {
    const session = await Session.create(trials, { device: 'cpu', threads: 1, optimization: 'none' });
    const feeds = { x: toDeviceValue(numbers([1, 32, 2, 2])), w: toDeviceValue(numbers([32, 32, 1, 1])) };
    const results = await session.run(feeds, ['plain', ...sizes.map((size) => `blocked${size}`)]);
    await session.release();
    const values = (name: string) => String(toHost(results[name]).data);
    return sizes.find((size) => values(`blocked${size}`) === values('plain'));
  } catch {
    return undefined; // no such operators
  }
}

const sizes = [16, 8] as const;

/** Small whole numbers, whose sums of products are exact in any order. */
const numbers = (shape: readonly number[]): NdArray =>
  ndarray(
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => (i * i) % 13),
    shape,
  );

const int64 = (values: readonly number[]): NdArray => ndarray(values, [values.length], 'int64');

/** The same convolution of 32 channels plainly and with each size of block. */
const trials: OnnxGraph = (() => {
  const node = (
    type: string,
    inputs: string[],
    output: string,
    attributes: Attributes = {},
    domain = '',
  ): OnnxNode => ({
    type,
    domain,
    inputs,
    outputs: [output],
    attributes,
  });
  const value = (name: string, shape: number[]) => ({ name, dtype: 'float32' as const, shape });
  const conv = { kernel_shape: { ints: [1, 1] } };
  const blocked = sizes.flatMap((size) => [
    node('Reshape', ['w', `split${size}`], `a${size}`),
    node('Transpose', [`a${size}`], `b${size}`, { perm: { ints: [0, 2, 4, 5, 3, 1] } }),
    node('Reshape', [`b${size}`, 'whole'], `w${size}`),
    node('Conv', ['xb', `w${size}`], `y${size}`, conv, BLOCKED_DOMAIN),
    node('ReorderOutput', [`y${size}`], `blocked${size}`, { channels: { i: 32 } }, BLOCKED_DOMAIN),
  ]);
  return {
    inputs: [value('x', [1, 32, 2, 2]), value('w', [32, 32, 1, 1])],
    outputs: ['plain', ...sizes.map((size) => `blocked${size}`)].map((name) => value(name, [1, 32, 2, 2])),
    initializers: [
      { name: 'whole', array: int64([32, 32, 1, 1]), external: false },
      ...sizes.map((size) => ({
        name: `split${size}`,
        array: int64([32 / size, size, 32 / size, size, 1, 1]),
        external: false,
      })),
    ],
    nodes: [node('Conv', ['x', 'w'], 'plain', conv), node('ReorderInput', ['x'], 'xb', {}, BLOCKED_DOMAIN), ...blocked],
  };
})();
