export { Generator } from './generator.js';
export * from './initializers.js';
