export * from './data/node/index.js';
export * from './io/node/index.js';
export * from './models/node/index.js';
export * from './pipelines/node/index.js';
export * from './training/node/index.js';
