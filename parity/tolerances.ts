import type { NdArray } from '../src/array/index.js';
import type { ReferenceCase } from './case.js';

/** How far an output may lie from the stored one. */
export interface Tolerance {
  readonly tolerance: number;
  /** Measure max|a - b| itself; by default it is divided by the largest magnitude of the stored tensor. */
  readonly absolute?: boolean;
  readonly reason: string;
}

interface Rule extends Tolerance {
  readonly group?: RegExp;
  /** Class, pipeline or symbol of the case. */
  readonly kind?: RegExp;
  /** Name of the stored tensor. */
  readonly tensor?: RegExp;
  readonly dtype?: RegExp;
  readonly when?: (reference: ReferenceCase) => boolean;
}

const withoutAvx = ({ description }: ReferenceCase): boolean => !String(description.cpu_capability).startsWith('AVX');

/** Recordings of a norm's training whose `out.step1`, `out.step2` ... are all the first step's statistics. */
const repeatsFirstStep = ({ tensors }: ReferenceCase): boolean =>
  [...tensors].every(
    ([name, { data }]) =>
      !/^out\.step\d+\./.test(name) || `${data}` === `${tensors.get(name.replace(/^out\.step\d+/, 'out.step0'))?.data}`,
  );

/** Trainings of channels so few (4 and 8, in groups of 2) that rounding shows after as many steps. */
const fiveSteps = ({ description }: ReferenceCase): boolean => Number(description.steps) >= 5;

/** Every exception from the rules at the end; the first rule that fits counts. */
const rules: readonly Rule[] = [
  {
    group: /^H_systems$/,
    kind: /^(BatchNorm|InstanceNorm)/,
    tensor: /^out\.step[1-9]\d*\./,
    when: repeatsFirstStep,
    tolerance: Number.POSITIVE_INFINITY,
    reason: "the recording repeats the first step's statistics; `out.eval_after` holds the later steps to theirs",
  },
  {
    group: /^H_systems$/,
    kind: /(Norm|Norm[12]d)$/,
    tensor: /^out\.loss$/,
    tolerance: 2e-5,
    absolute: true,
    reason: 'a sum of hundreds of terms of either sign, which may come out near zero',
  },

  { dtype: /^(?!.*float)/, tolerance: 0, reason: 'tokens, labels, timesteps, permutations and masks' },

  {
    group: /^F_rng$/,
    tensor: /^half\./,
    when: withoutAvx,
    tolerance: 2 ** -9,
    absolute: true,
    reason: 'normal numbers that differ by 2e-6 may round to neighbouring halves',
  },
  {
    group: /^F_rng$/,
    tensor: /^normal_\./,
    tolerance: 1e-6,
    reason: 'normal numbers multiplied by a standard deviation: measured against their size',
  },
  {
    group: /^F_rng$/,
    tensor: /(^|\.)(randn\w*|trunc_normal)\.|^embedding_/,
    tolerance: 2e-6,
    absolute: true,
    reason: "normal numbers: PyTorch's own builds differ by this much",
  },
  {
    group: /^F_rng$/,
    tensor: /^(linear|conv)_/,
    when: withoutAvx,
    tolerance: 2 ** -23,
    reason: 'builds without fused multiply-adds round the bounds of uniform weights once more',
  },
  {
    group: /^F_rng$/,
    tensor: /^exponential_/,
    tolerance: 2 ** -23,
    reason: 'one unit in the last place: logarithms of C libraries differ in rare last bits',
  },
  { group: /^F_rng$/, tolerance: 0, reason: 'the same bits, so the same numbers' },

  // A_schedulers
  {
    group: /^A_schedulers$/,
    kind: /^(Euler|LMS|Heun|KDPM2)/,
    tensor: /^(prev_samples|pred_original_samples|scaled_inputs|model_outputs)/,
    when: ({ tensors }) => Number(tensors.get('sigmas')?.data[0]) > 1000,
    tolerance: 1e-3,
    reason:
      'x begins at sigma 4096 (zero SNR) or 20291 (cosine), so the stored float32 runs lost 12 to 14 bits to ' +
      'cancellation: euler_zero_snr lies 1.7e-5 from float64',
  },

  {
    group: /^A_schedulers$/,
    kind: /^DEIS/,
    tensor: /^(prev_samples|model_outputs)/,
    when: ({ config }) => config.solver_order === 3 || config.use_flow_sigmas === true,
    tolerance: 1e-4,
    reason: 'the stored float32 integrals of order 3 cancel, and so do alpha ratios near sigma 1',
  },

  // E_training
  {
    group: /^E_training$/,
    kind: /^get_scheduler$/,
    tolerance: 1e-14,
    reason: 'a handful of float64 operations on the host',
  },
  {
    group: /^E_training$/,
    kind: /^EMAModel$/,
    tensor: /^decay\./,
    tolerance: 1e-14,
    reason: 'a handful of float64 operations on the host',
  },
  {
    group: /^E_training$/,
    kind: /^UNet2DConditionModel$/,
    tensor: /^grad_norms$/,
    when: fiveSteps,
    tolerance: 1e-2,
    reason: 'Adam amplifies: a last bit of the initial weights moves the fifth norm of the gradient by 6e-3 (measured)',
  },
  {
    group: /^E_training$/,
    kind: /^UNet2DConditionModel$/,
    tensor: /^(after|ema)\./,
    when: fiveSteps,
    tolerance: 1e-3,
    reason: 'the same amplification: 1e-4 in weights, which is 3e-4 of the largest in some (measured)',
  },
  { group: /^E_training$/, kind: /^(EMAModel|training_utils)$/, tolerance: 1e-6, reason: 'a few float32 operations' },

  // H_systems
  {
    group: /^H_systems$/,
    kind: /^Net$/,
    tensor: /^(out\.g_t_|grad\.)/,
    when: ({ tensors }) => tensors.has('in.style'),
    tolerance: 3e-5,
    reason:
      'AdaIN divides by the deviation of 6 to 9 nearly equal features, which magnifies their last bits: the stored images ' +
      'lie 8.2e-6 from float64 (measured), and so do ours',
  },
  {
    group: /^H_systems$/,
    kind: /^compute_(density|loss_weighting)_/,
    tolerance: 1e-6,
    reason: 'a few float32 operations on the host',
  },

  {
    group: /^H_systems$/,
    kind: /dopri8/,
    tensor: /^out\.steps_/,
    tolerance: 2e-3,
    reason: 'the first step errs by 1e-14, of which 1 % is rounding, and so the size of the next one varies by 2e-3',
  },

  {
    group: /^H_systems$/,
    kind: /^GaussianDiffusion/,
    tensor: /^out\.p_log_variance$/,
    tolerance: 1.5e-3,
    absolute: true,
    reason:
      "our samplers keep diffusers' float32 1 - alpha: its last bit is 1.5e-3 of the smallest beta (4e-5), whose " +
      'logarithm this is; guided-diffusion has float64 (5.4e-4 measured)',
  },

  {
    group: /^H_systems$/,
    kind: /^SSMKernelDPLR$/,
    tensor: /^out\.K$/,
    when: ({ config }) => /^fou/.test(String(config.init)),
    tolerance: 1e-4,
    reason: "the stored kernel's Fourier form lies 4.1e-5 from the stored recurrence, which ours matches to 1.7e-6",
  },
  {
    group: /^H_systems$/,
    kind: /^SSMKernelDPLR$/,
    tensor: /^out\.dC$/,
    when: ({ config }) => /^fou/.test(String(config.init)),
    tolerance: 2e-2,
    reason:
      '1 - A^L is all but singular for the wave of frequency zero, and the stored solution is of float32 (1.1e-2 from ' +
      'float64); B does not reach that state, so neither K nor y shows it',
  },

  {
    group: /^H_systems$/,
    kind: /^RealNVP$/,
    tensor: /^grad\..*\.rescale\.weight_v$/,
    tolerance: 1e-5,
    absolute: true,
    reason: 'the direction of one number is its sign: the true gradient is 0, and the stored one rounding (2e-6)',
  },

  // The rules of every group
  { group: /^[CDE]_/, tolerance: 1e-4, reason: 'models, pipelines and training: float32 through many layers' },
  { tolerance: 1e-5, reason: 'blocks, samplers, guiders and systems: float32 through a few layers' },
];

const fits = (pattern: RegExp | undefined, text: string): boolean => pattern === undefined || pattern.test(text);

/** The tolerance of one output. Where a case tells its own distance from float64, three times that is granted. */
export function toleranceOf(reference: ReferenceCase, tensor: string, { dtype }: NdArray): Tolerance {
  const rule = rules.find(
    ({ when = () => true, ...patterns }) =>
      fits(patterns.group, reference.group) &&
      fits(patterns.kind, reference.kind) &&
      fits(patterns.tensor, tensor) &&
      fits(patterns.dtype, dtype) &&
      when(reference),
  ) as Rule;
  const noise = noiseDriven(reference, tensor);
  if (noise) return noise;
  const floor = rule.absolute || rule.tolerance === 0 ? 0 : 3 * distanceFromFloat64(reference, tensor);
  if (floor <= rule.tolerance) return rule;
  return { tolerance: floor, reason: "three times the stored output's own distance from float64" };
}

/** Relative to the stored tensor. Trainings tell one distance for all their gradients, some of which are truly zero. */
function distanceFromFloat64({ description, tensors }: ReferenceCase, tensor: string): number {
  const figures = description.fp64 as Record<string, { maxdiff?: number; absmax?: number }> | undefined;
  const { maxdiff = 0, absmax = 0 } = figures?.[tensor] ?? figures?.[tensor.replace(/^out\./, '')] ?? {};
  if (absmax > 0) return maxdiff / absmax;
  const { grad_maxdiff: gradient = 0 } = (description.fp64 ?? {}) as { grad_maxdiff?: number };
  const largest = tensor.startsWith('grad.') && gradient > 0 ? magnitudeOf(tensors.get(tensor)) : 0;
  return largest > 0 ? gradient / largest : 0;
}

const magnitudeOf = (array: NdArray | undefined): number =>
  [...((array?.data ?? []) as Float32Array)].reduce((largest, x) => Math.max(largest, Math.abs(x)), 0);

/**
 * Parameters whose true gradient is (almost) zero, such as biases of keys: of the rounding noise that is left of it,
 * Adam makes steps as large as the learning rate. The cases list them with their distance from float64.
 */
function noiseDriven({ description }: ReferenceCase, tensor: string): Tolerance | undefined {
  const figures = description.fp64 as { after_maxdiff_noise_driven_params?: Record<string, number> } | undefined;
  const distance = figures?.after_maxdiff_noise_driven_params?.[tensor.replace(/^(after|ema)\./, '')];
  if (distance === undefined) return undefined;
  const reason = "driven by rounding noise: ten times the stored run's distance from float64";
  return { tolerance: 10 * distance, absolute: true, reason };
}
