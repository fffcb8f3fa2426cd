export * from './arrays.js';
export * from './files.js';
export * from './fingerprint.js';
export * from './hub.js';
export * from './image.js';
export * from './json.js';
export * from './lock.js';
export * from './tokenizerFolder.js';
