export { type ClipImageOptions, ClipImageProcessor } from './clipImageProcessor.js';
export {
  ClipTokenizer,
  type EncodeOptions,
  type Encoding,
  type TokenizerFiles,
  tokenizerFileNames,
} from './clipTokenizer.js';
export * from './config.js';
export { fixText } from './fixText.js';
export * from './grid.js';
export * from './idx.js';
export * from './npy.js';
export * from './npz.js';
export * from './png.js';
export * from './raster.js';
export { type ResampleFilter, resizeRaster } from './resample.js';
export * from './safetensors.js';
export { type Piece, readSentencePiece, Unigram, type UnigramOptions } from './sentencePiece.js';
export { T5Tokenizer, type T5TokenizerFiles, t5TokenizerFileNames } from './t5Tokenizer.js';
export * from './text.js';
export * from './trainTokenizer.js';
