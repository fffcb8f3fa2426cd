import { join } from 'node:path';
import { ndarray } from '../../array/index.js';
import { fileError, readBytes } from '../../io/node/index.js';
import { arrayDataset, type Dataset } from '../dataset.js';
import type { Split } from './split.js';

const classNames = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'];
const pixels = 3 * 32 * 32;
const files: Record<Split, readonly string[]> = {
  train: [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
  test: ['test_batch.bin'],
};

export const isCifar10Folder = (names: readonly string[]): boolean => names.includes(files.train[0]);

/**
 * CIFAR-10 in its binary version (`data_batch_1.bin` ... `test_batch.bin`): 32x32 RGB, each record a label and three planes.
 * @throws Error when a file is missing or is not made of such records (named).
 */
export async function openCifar10(folder: string, split: Split = 'train'): Promise<Dataset> {
  const parts: Uint8Array[] = [];
  for (const path of files[split].map((name) => join(folder, name))) {
    const bytes = await readBytes(path);
    if (bytes.length === 0 || bytes.length % (1 + pixels) !== 0)
      throw fileError('read', path, new Error(`${bytes.length} bytes, expected records of ${1 + pixels} (cut short?)`));
    parts.push(bytes);
  }
  const count = parts.reduce((n, part) => n + part.length / (1 + pixels), 0);
  const images = new Uint8Array(count * pixels);
  const labels = new Uint8Array(count);
  let i = 0;
  for (const part of parts)
    for (let at = 0; at < part.length; at += 1 + pixels, i++) {
      labels[i] = part[at];
      images.set(part.subarray(at + 1, at + 1 + pixels), i * pixels);
    }
  return arrayDataset(ndarray(images, [count, 3, 32, 32], 'uint8'), ndarray(labels, [count], 'uint8'), {
    name: 'cifar10',
    classNames,
  });
}
