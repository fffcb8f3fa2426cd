export { type CfgOptions, cfg, unguided } from './cfg.js';
export { type GuideOptions, guide } from './compose.js';
export {
  type Branch,
  type Guided,
  type Guider,
  guidePrediction,
  type Interval,
  negative,
  type Predictions,
  positive,
  type Schedule as ScaleSchedule,
  type StepInfo,
} from './guider.js';
export { rescaleGuidance } from './rescale.js';
