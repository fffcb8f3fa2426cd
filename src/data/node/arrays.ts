import type { NdArray } from '../../array/index.js';
import { readNpz, readSafetensors } from '../../io/node/index.js';
import { type ArrayDatasetOptions, arrayDataset, type Dataset } from '../dataset.js';
import type { Split } from './split.js';

const imageNames = ['images', 'x', 'data', 'arr_0'];
const labelNames = ['labels', 'y', 'label', 'arr_1'];

/**
 * Pictures and labels in a .npz or .safetensors file, named `images` and `labels` (or x and y, as Keras's mnist.npz has
 * them), alone or with the split: `images_train`, `x_test` ... Shapes and ranges as in `arrayDataset`.
 * @throws Error that lists the names in the file when there are no images.
 */
export async function openArrays(
  path: string,
  split: Split = 'train',
  options: ArrayDatasetOptions = {},
): Promise<Dataset> {
  const arrays = path.endsWith('.npz') ? await readNpz(path) : (await readSafetensors(path)).tensors;
  const find = (names: readonly string[]): NdArray | undefined => {
    // Arrays without a split are the training pictures.
    const candidates = names.flatMap((name) => [
      `${name}_${split}`,
      `${split}_${name}`,
      ...(split === 'train' ? [name] : []),
    ]);
    return arrays.get(candidates.find((name) => arrays.has(name)) ?? '');
  };
  const images = find(imageNames);
  if (!images)
    throw new Error(
      `${path}: no ${split} images among ${[...arrays.keys()].join(', ') || 'no arrays'}; name them 'images_${split}'`,
    );
  return arrayDataset(images, find(labelNames), { name: path, ...options });
}
