export { Generator } from './generator.js';
export * from './initializers.js';
export { Mt19937 } from './mt19937.js';
