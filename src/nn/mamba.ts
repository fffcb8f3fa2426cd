import { ndarray } from '../array/index.js';
import { biasUniform, type Generator, kaimingUniform } from '../random/index.js';
import { pad, softplus, split, type Tensor, type Variable } from '../tensor/index.js';
import { activate } from './activations.js';
import { Linear } from './linear.js';
import { linearScan } from './linearScan.js';
import { Module, ones, parameter } from './module.js';

export interface SelectiveScanInputs {
  /** Step sizes, positive [N, L, D]. */
  readonly delta: Tensor;
  /** [D, S], negative */
  readonly a: Tensor;
  /** [N, L, S] */
  readonly b: Tensor;
  /** [N, L, S] */
  readonly c: Tensor;
  /** [D]: how much of the input is added; default none. */
  readonly d?: Tensor;
}

/**
 * Mamba's state space model, whose step and projections come from the input (Gu and Dao 2023):
 * h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t · h_t + D u_t. B is discretised by Euler, as in the
 * authors' code.
 * @param u [N, L, D] @returns [N, L, D]
 */
export function selectiveScan(u: Tensor, { delta, a, b, c, d }: SelectiveScanInputs): Tensor {
  const decay = delta.unsqueeze(3).mul(a).exp();
  const input = delta.mul(u).unsqueeze(3).mul(b.unsqueeze(2));
  const y = linearScan(decay, input).mul(c.unsqueeze(2)).sum(3);
  return d ? y.add(u.mul(d)) : y;
}

/** Causal convolution of each channel alone, over tokens [N, L, C]. */
export class CausalConv1d extends Module {
  /** [C, 1, kernel] */
  readonly weight: Variable;
  readonly bias?: Variable;

  constructor(channels: number, kernel: number, bias: boolean, rng: Generator) {
    super();
    const shape = [channels, 1, kernel];
    this.weight = parameter(kaimingUniform(rng, shape));
    if (bias) this.bias = parameter(biasUniform(rng, shape));
  }

  forward(x: Tensor): Tensor {
    const [length, kernel] = [x.shape[1], this.weight.shape[2]];
    const padded = pad(x, [
      [0, 0],
      [kernel - 1, 0],
      [0, 0],
    ]);
    const taps = split(this.weight.squeeze(1), kernel, 1).map((w) => w.squeeze(1));
    const y = taps.map((w, k) => padded.slice(1, k, k + length).mul(w)).reduce((sum, tap) => sum.add(tap));
    return this.bias ? y.add(this.bias) : y;
  }
}

/** Names are mamba-minimal's, in camelCase. */
export interface MambaConfig {
  readonly dModel: number;
  /** State of each channel; default 16. */
  readonly dState?: number;
  /** Width inside, in `dModel`; default 2. */
  readonly expand?: number;
  /** Width of the projection to step sizes; default dModel / 16, rounded up. */
  readonly dtRank?: number;
  /** Tokens of the convolution; default 4. */
  readonly dConv?: number;
  /** Bias of the convolution; default true. */
  readonly convBias?: boolean;
  /** Bias of the projections into and out of the block; default false. */
  readonly bias?: boolean;
  /** Adds a second scan, with parameters of its own, from the end to the start (Vision Mamba); default false. */
  readonly bidirectional?: boolean;
}

/** Convolution and selective scan in one direction. */
export class SelectiveSsm extends Module {
  readonly conv1d: CausalConv1d;
  readonly xProj: Linear;
  readonly dtProj: Linear;
  /** log(-A) [inner, dState] */
  readonly aLog: Variable;
  /** [inner] */
  readonly d: Variable;

  constructor(
    readonly config: MambaConfig,
    rng: Generator,
  ) {
    super();
    const { dModel, dState = 16, expand = 2, dtRank = Math.ceil(dModel / 16), dConv = 4, convBias = true } = config;
    const inner = Math.trunc(expand * dModel);
    this.conv1d = new CausalConv1d(inner, dConv, convBias, rng);
    this.xProj = new Linear(inner, dtRank + 2 * dState, { bias: false }, rng);
    this.dtProj = new Linear(dtRank, inner, rng);
    this.dtProj.bias!.set(stepBias(inner, rng));
    this.aLog = parameter(
      ndarray(
        Array.from({ length: inner * dState }, (_, i) => Math.log((i % dState) + 1)),
        [inner, dState],
      ),
    );
    this.d = parameter(ones([inner]));
  }

  /** The state space model alone. @param u [N, L, inner] */
  ssm(u: Tensor): Tensor {
    const dState = this.aLog.shape[1];
    const dtRank = this.dtProj.weight.shape[1];
    const [dt, b, c] = split(this.xProj.forward(u), [dtRank, dState, dState], 2);
    const delta = softplus(this.dtProj.forward(dt));
    return selectiveScan(u, { delta, a: this.aLog.exp().neg(), b, c, d: this.d });
  }

  /** Convolution and state space model. @param x [N, L, inner] */
  scan(x: Tensor): Tensor {
    return this.ssm(activate('silu', this.conv1d.forward(x)));
  }
}

/** The inverse softplus of steps drawn from 0.001 to 0.1, evenly in their logarithm. */
function stepBias(count: number, rng: Generator) {
  const draws = rng.rand([count]).data;
  const steps = Array.from(draws, (x) => Math.max(0.001 * 100 ** Number(x), 1e-4));
  return ndarray(steps.map((dt) => dt + Math.log(-Math.expm1(-dt))));
}

/**
 * A Mamba block (Gu and Dao 2023) without its norm and residual: the projected input goes through convolution and
 * selective scan, is gated by a second projection, and projected back.
 */
export class Mamba extends SelectiveSsm {
  readonly inProj: Linear;
  readonly outProj: Linear;
  /** Of a bidirectional block: the scan of the reversed tokens. */
  readonly backward?: SelectiveSsm;

  constructor(config: MambaConfig, rng: Generator) {
    super(config, rng);
    const { dModel, bias = false } = config;
    const inner = this.d.size;
    this.inProj = new Linear(dModel, 2 * inner, { bias }, rng);
    this.outProj = new Linear(inner, dModel, { bias }, rng);
    if (config.bidirectional) this.backward = new SelectiveSsm(config, rng);
  }

  /** @param x [N, L, dModel] @returns [N, L, dModel] */
  forward(x: Tensor): Tensor {
    const [u, gate] = split(this.inProj.forward(x), 2, 2);
    const forth = this.scan(u);
    const y = this.backward ? forth.add(this.backward.scan(u.flip(1)).flip(1)) : forth;
    return this.outProj.forward(y.mul(activate('silu', gate)));
  }
}
