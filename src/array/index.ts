export * from './float16.js';
export * from './ndarray.js';
export * from './storedArray.js';
