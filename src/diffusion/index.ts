export * from './affinePath.js';
export * from './conditionalFlow.js';
export * from './flowPath.js';
export { type HybridLossInputs, hybridLoss, variationalBound } from './learnedVariance.js';
export { denoisingLoss, squaredError } from './losses.js';
export {
  type BetaSchedule,
  betaSchedules,
  type NoiseSchedule,
  type NoiseScheduleConfig,
  noiseSchedule,
} from './noiseSchedule.js';
export { linspace, linspaceFloat32, roundHalfToEven } from './numeric.js';
export * from './optimalTransport.js';
export {
  addNoise,
  convertPrediction,
  type NoiseLevels,
  type PredictionType,
  perSample,
  predictedNoise,
  predictedX0,
  predictionTarget,
  predictionTypes,
  x0Weights,
} from './prediction.js';
export { type Process, RectifiedFlow, shiftSigma, VariancePreserving } from './process.js';
export {
  type BetaRange,
  type ChainStep,
  chainSigmas,
  priorLogProb,
  type ReverseForm,
  reverseChain,
  reverseDrift,
  type ScoreGraph,
  type ScoreMatchingOptions,
  type Sde,
  type SdeName,
  type SigmaRange,
  samplePrior,
  scoreMatchingLoss,
  scoreOfNetwork,
  sdeNames,
  sdeTimes,
  subVpSde,
  veSde,
  vpSde,
} from './sde.js';
export * from './weighting.js';
