import { constant, gatherElements, gradients, logSoftmax, type Tensor, where } from '../tensor/index.js';
import {
  at,
  type Branch,
  checkInterval,
  type Guider,
  type Interval,
  inputAt,
  isInside,
  negative,
  positive,
  type Schedule,
  type StepInfo,
} from './guider.js';

/** A classifier of noisy images, such as EncoderUNet. */
export interface NoisyClassifier {
  readonly numClasses: number;
  /** Of the images it was trained on, [C, H, W]; others are refused. */
  readonly imageShape?: readonly number[];
  /** Logits [N, numClasses] of noisy images x [N, C, H, W] at timesteps [N]. */
  forward(x: Tensor, timestep: Tensor): Tensor;
}

export interface ClassifierGuidanceOptions {
  /**
   * 'score' (default, for any sampler): the gradient is added to the score, which is epsilon - sigma scale gradient
   * (section 4.2, algorithm 2). 'mean' (for DDPM): the mean of each step moves by its variance times the gradient
   * (section 4.1, algorithm 1), evaluated at x_t as guided-diffusion does.
   */
  readonly form?: 'score' | 'mean';
  /** Guide the unconditional prediction of a class-conditional model (its negative condition), not the conditional one. */
  readonly unconditional?: boolean;
  /** Outside it there is no guidance, and the classifier costs nothing. */
  readonly interval?: Interval;
}

/**
 * Classifier guidance (Dhariwal and Nichol 2021): the score of p(x_t) p(y | x_t)^scale. The classifier's gradient is
 * part of the step's graph. Images without a class (the null label) are not guided.
 * Unlike guided-diffusion, which clips the estimate of x0 before its DDIM form, a sampler that clips does so after.
 * @param scale 0 is no guidance; the paper uses 1 to 10.
 * @throws RangeError for an interval that is not rising inside [0, 1].
 */
export function classifierGuidance(
  classifier: NoisyClassifier,
  scale: Schedule,
  options: ClassifierGuidanceOptions = {},
): Guider {
  const { form = 'score', unconditional = false, interval } = options;
  checkInterval(interval);
  const base = unconditional ? negative : positive;
  const gradient: Branch = {
    name: nameOf(classifier),
    condition: 'positive',
    predict: (x, timestep, { labels }) => gradientOf(classifier, x, timestep, labels as Tensor),
  };
  const scaleAt = (step: StepInfo) => (isInside(interval, step) ? at(scale, step) : 0);
  return {
    slots: 0,
    inputCount: 1,
    numClasses: classifier.numClasses,
    branches: (step) => (scaleAt(step) === 0 ? [base] : [base, gradient]),
    inputs(step) {
      if (form === 'mean') return [scaleAt(step)];
      if (step.predictionPerScore === undefined)
        throw new TypeError(
          'classifierGuidance: the score form needs a step of a sampler, with its predictionPerScore',
        );
      return [scaleAt(step) * step.predictionPerScore];
    },
    combine(predictions, inputs, state) {
      const prediction = predictions.get(base.name)!;
      const direction = predictions.get(gradient.name);
      if (!direction) return { prediction, state };
      const push = direction.mul(inputAt(inputs, 0));
      return form === 'mean' ? { prediction, state, gradient: push } : { prediction: prediction.add(push), state };
    },
  };
}

/**
 * The gradient of log p(y | x_t) in x_t, [N, C, H, W]; zero where the label is not one of the classifier's.
 * @param labels int64 [N].
 * @throws RangeError for images of another shape than the classifier's.
 */
export function gradientOf(classifier: NoisyClassifier, x: Tensor, timestep: Tensor, labels: Tensor): Tensor {
  const { numClasses, imageShape } = classifier;
  if (imageShape && `${x.shape.slice(1)}` !== `${imageShape}`)
    throw new RangeError(
      `classifierGuidance: the classifier is for images [${imageShape}], the denoiser's are [${x.shape.slice(1)}]`,
    );
  const known = labels.less(constant(numClasses, 'int64'));
  const chosen = where(known, labels, constant(0, 'int64'));
  const logProbabilities = logSoftmax(classifier.forward(x, timestep), 1);
  const [slope] = gradients(gatherElements(logProbabilities, chosen.unsqueeze(1), 1).sum(), [x]);
  return slope.mul(known.cast('float32').reshape([-1, 1, 1, 1]));
}

/** Two classifiers are two branches, the same one asked twice is one. */
const names = new WeakMap<NoisyClassifier, string>();
let named = 0;
function nameOf(classifier: NoisyClassifier): string {
  if (!names.has(classifier)) names.set(classifier, `classifier ${++named}`);
  return names.get(classifier)!;
}
