import { readdir, stat } from 'node:fs/promises';
import type { Dataset } from '../dataset.js';
import { resized } from '../resize.js';
import { textures } from '../textures.js';
import { openArrays } from './arrays.js';
import { isCifar10Folder, openCifar10 } from './cifar10.js';
import { openFashionMnist } from './fashionMnist.js';
import { isIdxFolder, openIdx, openMnist } from './idx.js';
import { type ImageFolderOptions, openImageFolder } from './imageFolder.js';
import type { Split } from './split.js';

export interface OpenDatasetOptions extends ImageFolderOptions {
  split?: Split;
  /** Instead of the data set's own. */
  classNames?: readonly string[];
}

type Open = (path: string, split: Split, options: OpenDatasetOptions) => Promise<Dataset>;

const named = new Map<string, Open>([
  ['fashion-mnist', (_, split) => openFashionMnist(split)],
  ['mnist', (_, split) => openMnist(split)],
  ['textures', async (_, split, { size }) => textures(split === 'train' ? { size } : { size, length: 1000, seed: 1 })],
]);

const byKind = new Map<string, Open>([
  ['idx', (path, split, { classNames }) => openIdx(path, split, { classNames })],
  ['cifar10', (path, split) => openCifar10(path, split)],
  ['folder', openImageFolder],
  ['npz', (path, split, { classNames }) => openArrays(path, split, { classNames })],
  ['safetensors', (path, split, { classNames }) => openArrays(path, split, { classNames })],
]);

const forms = [
  ...named.keys(),
  'idx:FOLDER',
  'cifar10:FOLDER',
  'folder:FOLDER',
  'a folder',
  'a .npz or .safetensors file',
];

async function kindOf(path: string): Promise<string> {
  const status = await stat(path).catch(() => undefined);
  const ending = /\.(npz|safetensors)$/.exec(path)?.[1];
  if (status?.isFile() && ending) return ending;
  if (!status?.isDirectory())
    throw new Error(
      `data '${path}': ${status ? 'not a data set' : 'no such data set, file or folder'}; expected ${forms.join(', ')}`,
    );
  const names = await readdir(path);
  return isIdxFolder(names) ? 'idx' : isCifar10Folder(names) ? 'cifar10' : 'folder';
}

async function locate(spec: string): Promise<{ open: Open; path: string }> {
  const known = named.get(spec);
  if (known) return { open: known, path: spec };
  const [, kind, path] = /^(\w+):(.+)$/s.exec(spec) ?? [];
  const prefixed = byKind.get(kind);
  if (prefixed) return { open: prefixed, path };
  return { open: byKind.get(await kindOf(spec))!, path: spec };
}

/**
 * Opens a data set by its name or place: `fashion-mnist`, `mnist`, `textures`, `idx:FOLDER`, `cifar10:FOLDER`,
 * `folder:FOLDER`, or a path (a folder of pictures, IDX or CIFAR-10 files, or a .npz or .safetensors file).
 * @param options `size` scales pictures to size x size; the others but `split` and `classNames` are for folders of pictures.
 * @throws Error that names what is missing, damaged or unknown.
 */
export async function openDataset(spec: string, options: OpenDatasetOptions = {}): Promise<Dataset> {
  const { split = 'train', size, channels, classNames } = options;
  const { open, path } = await locate(spec);
  const dataset = await open(path, split, options);
  if (classNames && classNames.length !== dataset.classNames.length)
    throw new Error(`data '${spec}': ${classNames.length} class names for ${dataset.classNames.length} classes`);
  if (channels && channels !== dataset.shape[0])
    throw new Error(`data '${spec}': its pictures have ${dataset.shape[0]} channels, expected ${channels}`);
  const renamed = classNames ? { ...dataset, classNames } : dataset;
  return size === undefined ? renamed : resized(renamed, size);
}
