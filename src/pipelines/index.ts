export * from './denoise.js';
export * from './predict.js';
export * from './sample.js';
export * from './variancePreservingFlow.js';
