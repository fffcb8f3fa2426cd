export { type Compiled, type CompileOptions, compile, evaluate, type Hosted } from './compile.js';
export { computedNumbers, flops } from './flops.js';
export { checkpoint, gradients } from './gradients.js';
export { type ConvOptions, convTranspose2d } from './ops/conv.js';
export { gelu, mish, quickGelu, relu, silu, softplus, stopGradient, where } from './ops/elementwise.js';
export { arange, gather, gatherElements, oneHot, scatterAdd, sort, topK } from './ops/indexing.js';
export { constant, zerosLike } from './ops/leaves.js';
export { linear, matmul, matrixTranspose } from './ops/linear.js';
export { sumOverParts } from './ops/loop.js';
export {
  type AttentionOptions,
  groupNorm,
  logSoftmax,
  normalize,
  scaledDotProductAttention,
  softmax,
} from './ops/normalize.js';
export { draw, rand, randint, randn } from './ops/random.js';
export { sumOfSquares, variance } from './ops/reduce.js';
export { avgPool2d, maxPool2d, resizeNearest } from './ops/resample.js';
export { concat, pad, split, stack } from './ops/shape.js';
export { conv2d } from './ops/upsampledConv.js';
export { Tensor } from './tensor.js';
export { type OnnxInput, toOnnx } from './toOnnx.js';
export type { Tree } from './tree.js';
export { Variable, variable } from './variable.js';
