import { zeros } from '../array/index.js';
import { sumOfSquares, type Tensor, Variable } from '../tensor/index.js';

export type NamedParameters = ReadonlyMap<string, Variable>;

/**
 * How parameters follow their gradients. `update` is written inside the traced training step; what changes from
 * step to step reaches it as a small vector, computed in float64 on the host, so that nothing is ever recompiled.
 */
export interface Optimizer {
  /** Everything a checkpoint must hold, by name. */
  readonly state: ReadonlyMap<string, Variable>;
  /** The numbers of this step (counted from 1), in the order `update` reads them. */
  hyperparameters(step: number, learningRate: number): readonly number[];
  /** Assigns every parameter its next value and returns those values. */
  update(gradients: readonly Tensor[], hyperparameters: readonly Tensor[]): Tensor[];
}

export interface AdamWOptions {
  /** Decay rates of the first and second moment; default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Default 1e-8. */
  readonly eps?: number;
  /** Decoupled decay: each step multiplies a weight by 1 - learningRate * weightDecay; default 0.01. */
  readonly weightDecay?: number;
  /** Parameters left out of the decay, e.g. {@link withoutDecay}. */
  readonly exclude?: (name: string, parameter: Variable) => boolean;
}

/** The usual group without decay: biases, the affine parts of norms, embedding tables. */
export const withoutDecay = (name: string, parameter: Variable): boolean =>
  parameter.rank < 2 || name.includes('embed');

const moments = (parameters: NamedParameters, prefix: string): Map<string, Variable> =>
  new Map(
    [...parameters].map(([name, p]) => [`${prefix}.${name}`, new Variable(zeros(p.shape), false, `${prefix}.${name}`)]),
  );

/** AdamW (Loshchilov & Hutter 2019), as torch.optim.AdamW. */
export function adamW(parameters: NamedParameters, options: AdamWOptions = {}): Optimizer {
  const { betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, exclude = () => false } = options;
  const first = moments(parameters, 'exp_avg');
  const second = moments(parameters, 'exp_avg_sq');
  return {
    state: new Map([...first, ...second]),
    hyperparameters: (step, learningRate) => [
      learningRate / (1 - beta1 ** step),
      1 / Math.sqrt(1 - beta2 ** step),
      1 - learningRate * weightDecay,
    ],
    update(gradients, [stepSize, correction, decay]) {
      const [m, v] = [[...first.values()], [...second.values()]];
      return [...parameters].map(([name, p], i) => {
        const g = gradients[i];
        const nextM = m[i].mul(beta1).add(g.mul(1 - beta1));
        const nextV = v[i].mul(beta2).add(g.square().mul(1 - beta2));
        const decayed = weightDecay === 0 || exclude(name, p) ? p : p.mul(decay);
        const next = decayed.sub(nextM.mul(stepSize).div(nextV.sqrt().mul(correction).add(eps)));
        m[i].assign(nextM);
        v[i].assign(nextV);
        p.assign(next);
        return next;
      });
    },
  };
}

export interface SgdOptions {
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** Added to the gradient (L2), as in torch.optim.SGD. */
  readonly weightDecay?: number;
}

/** Stochastic gradient descent, as torch.optim.SGD without dampening. */
export function sgd(
  parameters: NamedParameters,
  { momentum = 0, nesterov = false, weightDecay = 0 }: SgdOptions = {},
): Optimizer {
  const buffers = momentum === 0 ? new Map<string, Variable>() : moments(parameters, 'momentum_buffer');
  return {
    state: buffers,
    hyperparameters: (_, learningRate) => [learningRate],
    update(gradients, [learningRate]) {
      const b = [...buffers.values()];
      return [...parameters.values()].map((p, i) => {
        const g = weightDecay === 0 ? gradients[i] : gradients[i].add(p.mul(weightDecay));
        const velocity = momentum === 0 ? g : b[i].mul(momentum).add(g);
        if (momentum !== 0) b[i].assign(velocity);
        const direction = nesterov ? g.add(velocity.mul(momentum)) : velocity;
        const next = p.sub(direction.mul(learningRate));
        p.assign(next);
        return next;
      });
    },
  };
}

/** Scales gradients so that their joint Euclidean norm is at most `maxNorm`: torch.nn.utils.clip_grad_norm_. */
export function clipGradients(
  gradients: readonly Tensor[],
  maxNorm?: number,
): { clipped: readonly Tensor[]; norm: Tensor } {
  const norm = gradients
    .map((g) => sumOfSquares(g))
    .reduce((a, b) => a.add(b))
    .sqrt();
  if (maxNorm === undefined) return { clipped: gradients, norm };
  const scale = norm.add(1e-6).reciprocal().mul(maxNorm).minimum(1);
  return { clipped: gradients.map((g) => g.mul(scale)), norm };
}
