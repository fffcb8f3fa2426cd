export * from './float16.js';
export * from './ndarray.js';
