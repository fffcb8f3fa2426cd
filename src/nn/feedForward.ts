import type { Generator } from '../random/index.js';
import { split, type Tensor } from '../tensor/index.js';
import { type ActivationName, activate, activation, recomputed } from './activations.js';
import { Dropout } from './dropout.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { perturbed } from './perturbation.js';

export type FeedForwardActivation =
  | 'gelu'
  | 'gelu-approximate'
  | 'geglu'
  | 'geglu-approximate'
  | 'swiglu'
  | 'linear-silu';

/** act(proj(x)): [..., in] to [..., out]. */
export class ProjectedActivation extends Module {
  readonly proj: Linear;

  constructor(
    dim: number,
    dimOut: number,
    readonly activation: ActivationName,
    options: { bias?: boolean },
    rng: Generator,
  ) {
    super();
    this.proj = new Linear(dim, dimOut, options, rng);
  }

  forward(x: Tensor): Tensor {
    return activation(this.activation)(this.proj.forward(x));
  }
}

/** value * act(gate) with (value, gate) the halves of proj(x) (Shazeer 2020): GEGLU with 'gelu', SwiGLU with 'silu'. */
export class GatedLinearUnit extends ProjectedActivation {
  constructor(dim: number, dimOut: number, activation: ActivationName, options: { bias?: boolean }, rng: Generator) {
    super(dim, 2 * dimOut, activation, options, rng);
  }

  override forward(x: Tensor): Tensor {
    return gatedLinearUnit(this.proj.forward(x), this.activation);
  }
}

/** value * act(gate), (value, gate) the halves of the last axis. */
export const gatedLinearUnit = (x: Tensor, activation: ActivationName): Tensor =>
  recomputed(() => {
    const [value, gate] = split(x, 2, -1);
    return value.mul(activate(activation, gate));
  });

export interface FeedForwardConfig {
  readonly dim: number;
  /** Default `dim`. */
  readonly dimOut?: number;
  /** Width of the hidden layer over `dim`; default 4. */
  readonly mult?: number;
  /** Overrides `mult`. */
  readonly innerDim?: number;
  /** Default 'geglu'. 'geglu-approximate' is no gated unit but x sigmoid(1.702 x), whatever diffusers calls it. */
  readonly activationFn?: FeedForwardActivation;
  readonly dropout?: number;
  readonly finalDropout?: boolean;
  readonly bias?: boolean;
}

const inner = {
  gelu: [ProjectedActivation, 'gelu'],
  'gelu-approximate': [ProjectedActivation, 'gelu-approximate'],
  'geglu-approximate': [ProjectedActivation, 'quick_gelu'],
  'linear-silu': [ProjectedActivation, 'silu'],
  geglu: [GatedLinearUnit, 'gelu'],
  swiglu: [GatedLinearUnit, 'silu'],
} as const;

/** The transformer's position-wise network: project in and activate, dropout, project out, over the last axis. */
export class FeedForward extends Module {
  readonly net: readonly [ProjectedActivation | GatedLinearUnit, Dropout, Linear, ...Dropout[]];

  /** @throws RangeError for an unknown activation. */
  constructor(config: FeedForwardConfig, rng: Generator) {
    super();
    const {
      dim,
      dimOut = dim,
      mult = 4,
      activationFn = 'geglu',
      dropout = 0,
      finalDropout = false,
      bias = true,
    } = config;
    const innerDim = config.innerDim ?? Math.floor(dim * mult);
    if (!Object.hasOwn(inner, activationFn))
      throw new RangeError(
        `FeedForward: activation '${activationFn}', expected one of ${Object.keys(inner).join(', ')}`,
      );
    const [Inner, activation] = inner[activationFn];
    this.net = [
      new Inner(dim, innerDim, activation, { bias }, rng),
      new Dropout(dropout),
      new Linear(innerDim, dimOut, { bias }, rng),
      ...(finalDropout ? [new Dropout(dropout)] : []),
    ];
  }

  forward(x: Tensor): Tensor {
    return perturbed(this, x, () => this.net.reduce((y, layer) => layer.forward(y), x));
  }
}
