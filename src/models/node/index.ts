export * from './classifierFolder.js';
export * from './modelFolder.js';
