export * from './predict.js';
export * from './sample.js';
