export * from './batches.js';
export * from './dataset.js';
export * from './edges.js';
export * from './resize.js';
export * from './textures.js';
