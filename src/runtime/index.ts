export * from './convBlock.js';
export * from './onnx.js';
export * from './session.js';
export * from './state.js';
export * from './transfer.js';
export * from './turns.js';
