export * from './batches.js';
export * from './dataset.js';
export * from './resize.js';
