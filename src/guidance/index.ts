export { type ApgMixOptions, type ApgOptions, apg, apgMix } from './apg.js';
export { type AutoguidanceOptions, autoguidance } from './autoguidance.js';
export { cfg, unguided } from './cfg.js';
export { type CfgZeroStarOptions, cfgZeroStar } from './cfgZeroStar.js';
export { type ClassifierGuidanceOptions, classifierGuidance, gradientOf, type NoisyClassifier } from './classifier.js';
export { type GuideOptions, guide } from './compose.js';
export { composeConditions } from './composeConditions.js';
export { type Contrast, type Contrasted, contrast } from './contrast.js';
export { type FrequencyDecoupledOptions, frequencyDecoupled } from './frequencyDecoupled.js';
export {
  type Branch,
  type Condition,
  type GuidanceOptions,
  type Guided,
  type Guider,
  guidePrediction,
  type Interval,
  inputAt,
  negative,
  type Perturbations,
  type Predictions,
  positive,
  type ScaleConvention,
  type Schedule as ScaleSchedule,
  type StepInfo,
} from './guider.js';
export { fromLaplacianPyramid, laplacianPyramid, pyramidDown, pyramidUp } from './laplacian.js';
export { chosenLayers, type LayerKind, type Layers, perturbable } from './layers.js';
export { type MagnitudeAwareOptions, magnitudeAware } from './magnitudeAware.js';
export { type PerturbedOptions, pag, perturbedBranch } from './pag.js';
export { rescaleGuidance } from './rescale.js';
export { type SkipOptions, skipBranch, skipLayer } from './skipLayer.js';
export { gaussianBlur2d, type SmoothedEnergyOptions, smoothedEnergy } from './smoothedEnergy.js';
export { tangentialCfg } from './tangential.js';
