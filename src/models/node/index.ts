export * from './modelFolder.js';
