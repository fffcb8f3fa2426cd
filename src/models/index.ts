export * from './config.js';
export * from './dit.js';
export * from './registry.js';
