export * from './arrays.js';
export * from './captionFolder.js';
export * from './cifar10.js';
export * from './emoji.js';
export * from './fashionMnist.js';
export * from './idx.js';
export { type ImageFolder, type ImageFolderOptions, openImageFolder } from './imageFolder.js';
export * from './openDataset.js';
export * from './split.js';
