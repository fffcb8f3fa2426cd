export * from './classifierFolder.js';
export * from './imageDistributionFolder.js';
export * from './modelFolder.js';
export * from './styleFolder.js';
