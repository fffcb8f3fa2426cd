export * from './classConditional.js';
export * from './noisyClassifier.js';
