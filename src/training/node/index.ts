export * from './autoencoderRun.js';
export * from './autoregressiveRun.js';
export * from './folderRun.js';
export * from './likelihoodRun.js';
export { openActivations } from './perceptualFolder.js';
export * from './pipelineFolder.js';
export * from './run.js';
export * from './runFolder.js';
export * from './styleRun.js';
