export * from './onnx.js';
export * from './session.js';
