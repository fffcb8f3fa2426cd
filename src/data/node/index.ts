export * from './arrays.js';
export * from './cifar10.js';
export * from './emoji.js';
export * from './fashionMnist.js';
export * from './idx.js';
export * from './imageFolder.js';
export * from './openDataset.js';
export * from './split.js';
