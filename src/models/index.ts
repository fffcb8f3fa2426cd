export * from './classifier.js';
export * from './clipText.js';
export { configFromJson, configToJson, modelConfig } from './config.js';
export type * from './denoiser.js';
export * from './dit.js';
export * from './pixartTransformer2d.js';
export * from './registry.js';
export * from './sd3Transformer2d.js';
export * from './unet2d.js';
