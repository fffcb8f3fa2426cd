export * from './activations.js';
export * from './adaGroupNorm.js';
export * from './adaIN.js';
export * from './adaLayerNorm.js';
export * from './adaLayerNormContinuous.js';
export * from './adaLayerNormSingle.js';
export * from './adaLayerNormZero.js';
export * from './addedConditions.js';
export * from './attention.js';
export * from './batchNorm.js';
export * from './combinedEmbeddings.js';
export { type Complex, toPairs } from './complex.js';
export * from './controlNetConditioning.js';
export * from './conv2d.js';
export * from './convTranspose2d.js';
export * from './dropout.js';
export * from './embedding.js';
export * from './feedForward.js';
export * from './fir.js';
export * from './flash.js';
export * from './gatedAttention.js';
export * from './gaussianFourier.js';
export * from './groupNorm.js';
export * from './hippo.js';
export * from './imageProjection.js';
export * from './instanceNorm.js';
export * from './jointTransformerBlock.js';
export * from './l2Norm.js';
export * from './labelEmbedding.js';
export * from './layerNorm.js';
export * from './linear.js';
export {
  eluPlusOne,
  LinearAttention,
  type LinearAttentionConfig,
  type LinearAttentionOptions,
  linearAttention,
} from './linearAttention.js';
export * from './linearScan.js';
export * from './lora.js';
export * from './mamba.js';
export * from './module.js';
export * from './patchEmbed.js';
export * from './perturbation.js';
export * from './reflectionPad2d.js';
export * from './relativePosition.js';
export * from './resample.js';
export * from './resnet.js';
export * from './rmsNorm.js';
export * from './s4.js';
export { S4D, S4DKernel, type S4DLayerOptions, type S4DOptions } from './s4d.js';
export * from './sincos.js';
export * from './spatialNorm.js';
export { impulseResponse, respond, type StateSpace } from './stateSpace.js';
export type { StatisticsOptions } from './statistics.js';
export * from './textProjection.js';
export * from './timestepEmbedding.js';
export * from './timesteps.js';
export * from './tokenMixer.js';
export * from './transformer2d.js';
export * from './transformerBlock.js';
