export { cfg, unguided } from './cfg.js';
export { type ClassifierGuidanceOptions, classifierGuidance, gradientOf, type NoisyClassifier } from './classifier.js';
export { type GuideOptions, guide } from './compose.js';
export { type Contrast, type Contrasted, contrast } from './contrast.js';
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
export { chosenLayers, type LayerKind, type Layers, perturbable } from './layers.js';
export { type PerturbedOptions, pag, perturbedBranch } from './pag.js';
export { rescaleGuidance } from './rescale.js';
