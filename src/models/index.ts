export * from './config.js';
export * from './dit.js';
