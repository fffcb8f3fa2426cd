export * from './classifier.js';
export { configFromJson, configToJson, modelConfig } from './config.js';
export type * from './denoiser.js';
export * from './dit.js';
export * from './registry.js';
export * from './unet2d.js';
