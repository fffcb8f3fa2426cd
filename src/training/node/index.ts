export * from './pipelineFolder.js';
export * from './run.js';
