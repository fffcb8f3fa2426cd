export * from './grid.js';
export * from './idx.js';
export * from './npy.js';
export * from './npz.js';
export * from './png.js';
export * from './raster.js';
export * from './safetensors.js';
export * from './text.js';
