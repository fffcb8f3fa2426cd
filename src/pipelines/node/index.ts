export * from './classConditional.js';
export * from './flowRun.js';
export * from './imageFlowFolder.js';
export * from './noisyClassifier.js';
export * from './pipeline.js';
export * from './singleFile.js';
export * from './source.js';
export * from './textToImageFolder.js';
export { loraFile, TextToImageRun } from './textToImageRun.js';
