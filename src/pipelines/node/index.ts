export * from './classConditional.js';
