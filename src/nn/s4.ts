import { type NdArray, ndarray } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { concat, constant, matmul, relu, softplus, split, type Tensor, type Variable } from '../tensor/index.js';
import { both, type Complex, exponential, fromPairs, inverse, plusReal, scaled, times } from './complex.js';
import { type ComplexVector, type HippoMeasure, nplr } from './hippo.js';
import { Module, parameter } from './module.js';
import { complexNormal, logSteps, zeroOrderHold } from './s4d.js';
import { denseSystem, diagonalSystem, impulseResponse, powers, type StateSpace } from './stateSpace.js';

/** How a positive number comes from a free one. */
export type PositiveForm = 'none' | 'exp' | 'relu' | 'sigmoid' | 'softplus';

const positiveForms: Readonly<Record<PositiveForm, (x: Tensor) => Tensor>> = {
  none: (x) => x,
  exp: (x) => x.exp(),
  relu: (x) => relu(x).add(1e-4),
  sigmoid: (x) => x.sigmoid(),
  softplus,
};
const inverseForms: Readonly<Record<PositiveForm, (x: number) => number>> = {
  none: (x) => x,
  exp: Math.log,
  relu: (x) => x,
  sigmoid: (x) => Math.log(x / (1 - x)),
  softplus: (x) => Math.log(Math.expm1(x)),
};

/** Names and defaults are those of state-spaces/s4. */
export interface S4KernelOptions {
  readonly dModel: number;
  /** States of each channel, in conjugate pairs; default 64. */
  readonly dState?: number;
  /** Outputs of each channel; default 1. */
  readonly channels?: number;
  /** Sets of A, B and P, shared by as many channels each; default one for each channel. */
  readonly nSsm?: number;
  /** Rank of P; default the measure's own. */
  readonly rank?: number;
  /** Default 'legs'. */
  readonly init?: HippoMeasure | 'diag-lin' | 'diag-inv' | 'diag-legs';
  readonly dtMin?: number;
  readonly dtMax?: number;
  /** One step size for all states of a channel; default true. */
  readonly dtTie?: boolean;
  /** Default 'exp'. */
  readonly dtTransform?: PositiveForm;
  readonly realTransform?: PositiveForm;
  /** Default 'none'. */
  readonly imagTransform?: PositiveForm;
  /** Of the diagonal kernel; default 'zoh'. */
  readonly disc?: 'zoh' | 'bilinear' | 'dss';
  /** Leaves out states whose frequency is beyond this part of the sampling rate. */
  readonly bandlimit?: number;
}

/** Columns of complex vectors as pairs, repeated for each of `count` systems: [count, N / 2, 2]. */
function repeated({ re, im }: ComplexVector, count: number): NdArray<'float32'> {
  const once = Array.from(re, (x, i) => [x, im[i]]).flat();
  return ndarray(Array.from({ length: count }, () => once).flat(), [count, re.length, 2]);
}

function initialState(init: string, n: number, rank?: number): Pick<ReturnType<typeof nplr>, 'w' | 'p' | 'b'> {
  const [kind, form] = init.split('-');
  if (kind !== 'diag') return nplr(init as HippoMeasure, n, { rank });
  const legs = form === 'legs' ? nplr('legs', n) : undefined;
  const frequency = (i: number) => (form === 'inv' ? (n / Math.PI) * (n / (1 + 2 * i) - 1) : Math.PI * i);
  const fill = (f: (i: number) => number) => Float64Array.from({ length: n / 2 }, (_, i) => f(i));
  return {
    w: { re: fill(() => -0.5), im: legs?.w.im ?? fill((i) => -frequency(i)) },
    b: legs?.b ?? { re: fill(() => 1), im: fill(() => 0) },
    p: [],
  };
}

/** What the diagonal and the full kernel share: A = -f(A_real) - i g(A_imag), B, C and step sizes. */
export abstract class S4Kernel extends Module {
  /** Pairs [channels, H, N / 2, 2] */
  readonly c: Variable;
  /** Pairs [1, nSsm, N / 2, 2] */
  readonly b: Variable;
  /** [nSsm, N / 2] */
  readonly aReal: Variable;
  /** [nSsm, N / 2] */
  readonly aImag: Variable;
  /** [H, 1], or [H, N / 2] when not tied */
  readonly invDt: Variable;
  /** Pairs [rank, nSsm, N / 2, 2] */
  readonly p?: Variable;

  /** @throws RangeError for an odd number of states, or shared systems that do not divide the channels. */
  constructor(
    readonly options: S4KernelOptions,
    rng: Generator,
    lowRank: boolean,
  ) {
    super();
    const { dModel, dState = 64, channels = 1, nSsm = dModel, dtTie = true } = options;
    if (dState % 2) throw new RangeError(`S4: ${dState} states, expected pairs of them`);
    if (dModel % nSsm) throw new RangeError(`S4: ${nSsm} systems do not divide ${dModel} channels`);
    const half = dState / 2;
    const { w, p, b } = initialState(options.init ?? 'legs', dState, options.rank);
    const { dtTransform = 'exp', realTransform = 'exp', imagTransform = 'none' } = options;
    const free = (form: PositiveForm, values: Float64Array, sets: number) =>
      parameter(
        ndarray(
          Array.from({ length: sets * half }, (_, i) => inverseForms[form](Math.max(-values[i % half], 1e-4))),
          [sets, half],
        ),
      );
    const columns = dtTie ? 1 : half;
    const logDt = logSteps(rng, dModel * columns, options.dtMin, options.dtMax);
    const steps = Array.from(logDt.data, (x) => (dtTransform === 'exp' ? x : inverseForms[dtTransform](Math.exp(x))));
    this.invDt = parameter(ndarray(steps, [dModel, columns]));
    this.c = parameter(complexNormal(rng, [channels, dModel, half]));
    this.b = parameter({ ...repeated(b, nSsm), shape: [1, nSsm, half, 2] });
    this.aReal = free(realTransform, w.re, nSsm);
    this.aImag = free(imagTransform, w.im, nSsm);
    if (lowRank) {
      const rows = p.flatMap((row) => [...repeated(row, nSsm).data]);
      this.p = parameter(ndarray(rows, [p.length, nSsm, half, 2]));
    }
  }

  /** Step sizes [H, 1 or N / 2], A and B [H, N / 2], C [channels, H, N / 2]. */
  protected discretisable(): { dt: Tensor; a: Complex; b: Complex; c: Complex } {
    const { dtTransform = 'exp', realTransform = 'exp', imagTransform = 'none', bandlimit } = this.options;
    const dt = positiveForms[dtTransform](this.invDt);
    const a = both(
      { re: positiveForms[realTransform](this.aReal).neg(), im: positiveForms[imagTransform](this.aImag).neg() },
      (x) => this.forChannels(x),
    );
    const b = both(fromPairs(this.b.squeeze(0)), (x) => this.forChannels(x));
    const c = fromPairs(this.c);
    if (bandlimit === undefined) return { dt, a, b, c };
    const kept = dt
      .mul(a.im.abs())
      .div(2 * Math.PI)
      .less(bandlimit / 2)
      .cast('float32');
    return { dt, a, b, c: scaled(c, kept) };
  }

  /** [..., nSsm, N / 2] as [..., H, N / 2]: the systems in turn. */
  protected forChannels(x: Tensor): Tensor {
    const copies = this.options.dModel / this.aReal.shape[0];
    return concat(
      Array.from({ length: copies }, () => x),
      x.rank - 2,
    );
  }

  /** The discrete systems, one of as many real states for each output: see {@link respond}. */
  abstract systems(): StateSpace[];

  /** The convolution kernels [channels, H, length]. */
  forward(length: number): Tensor {
    return concat(this.systems().map((system) => impulseResponse(system, length).unsqueeze(0)));
  }
}

/** S4D and DSS: diagonal state matrices (Gu et al. 2022, Gupta 2022). Follows SSMKernelDiag of state-spaces/s4. */
export class S4DiagonalKernel extends S4Kernel {
  constructor(options: S4KernelOptions, rng: Generator) {
    super({ init: 'diag-lin', ...options }, rng, false);
  }

  /** @returns A, B [H, N / 2] and C [channels, H, N / 2] of x_t = A x_{t-1} + B u_t, y_t = 2 Re(C x_t). */
  discrete(): { a: Complex; b: Complex; c: Complex } {
    const { dt, a, b, c } = this.discretisable();
    if (this.options.disc === 'bilinear') {
      const half = scaled(a, dt.div(2));
      const divisor = inverse(plusReal(scaled(half, -1), 1));
      return { a: times(plusReal(half, 1), divisor), b: times(b, scaled(divisor, dt)), c };
    }
    const { decay, input } = zeroOrderHold(a, dt);
    return { a: decay, b: times(b, input), c };
  }

  systems(): StateSpace[] {
    const { a, b, c } = this.discrete();
    return outputsOf(c).map((output) => diagonalSystem(a, b, output));
  }

  override forward(length: number): Tensor {
    return this.options.disc === 'dss' ? this.dss(length) : super.forward(length);
  }

  /** DSS divides by the sum of each state's powers, a softmax over time. */
  private dss(length: number): Tensor {
    const { dt, a, b, c } = this.discretisable();
    const step = scaled(a, dt);
    const decay = exponential(step);
    const total = times(plusReal(exponential(scaled(step, length)), -1), a);
    const weight = times(times(b, plusReal(decay, -1)), inverse(total, 1e-7));
    const { re, im } = powers(decay, length);
    return concat(
      outputsOf(c).map((output) => {
        const { re: x, im: y } = times(output, weight);
        return matmul(x.unsqueeze(1), re)
          .sub(matmul(y.unsqueeze(1), im))
          .squeeze(1)
          .unsqueeze(0);
      }),
    );
  }
}

const outputsOf = (c: Complex): Complex[] =>
  Array.from({ length: c.re.shape[0] }, (_, i) => both(c, (x) => x.slice(0, i, i + 1).squeeze(0)));

/**
 * S4: diagonal plus low-rank matrices A = Lambda - P P* by the bilinear rule (Gu et al. 2022). Follows SSMKernelDPLR
 * of state-spaces/s4 but for how the kernel is computed: by doubling the powers of the discrete matrix, with C itself
 * as the parameter (the source stores C (1 - A^L), for its Fourier form).
 */
export class S4LowRankKernel extends S4Kernel {
  constructor(options: S4KernelOptions, rng: Generator) {
    super(options, rng, true);
  }

  /** As real matrices over [Re x, Im x]: A [H, N, N], B [H, N, 1], C [channels, H, 1, N]; y_t = C x_t. */
  discrete(): { a: Tensor; b: Tensor; c: Tensor } {
    const { dt, a, b, c } = this.discretisable();
    const n = 2 * a.re.shape[1];
    const step = dt.expand(a.re.shape);
    // (1 - dt/2 A)^-1 for the diagonal part; each row of P changes it by one of rank one.
    let resolvent = asMatrix(inverse(plusReal(scaled(a, step.div(-2)), 1)));
    const steps = concat([step, step], 1).unsqueeze(2);
    for (const row of split(this.p!, this.p!.shape[0])) {
      const p = both(fromPairs(row.squeeze(0)), (x) => this.forChannels(x));
      const column = concat([p.re, p.im], 1).unsqueeze(2);
      const left = resolvent.matmul(column.mul(steps));
      const right = matmul(column, resolvent, { transA: true });
      resolvent = resolvent.sub(left.matmul(right).div(right.matmul(column.mul(steps)).add(1)));
    }
    const identity = asMatrix({ re: constant(1).expand([1, n / 2]), im: constant(0).expand([1, n / 2]) });
    const input = concat([b.re, b.im], 1).unsqueeze(2);
    return {
      a: resolvent.mul(2).sub(identity),
      b: resolvent.matmul(input.mul(steps)),
      c: concat([c.re.mul(2), c.im.mul(-2)], 2).unsqueeze(2),
    };
  }

  systems(): StateSpace[] {
    const { a, b, c } = this.discrete();
    return split(c, c.shape[0]).map((output) => denseSystem(a, b, output.squeeze(0)));
  }
}

/** Multiplication by complex numbers [H, n] as real matrices [H, 2n, 2n]. */
function asMatrix({ re, im }: Complex): Tensor {
  const n = re.shape[1];
  const identity = constant(
    ndarray(
      Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0)),
      [n, n],
    ),
  );
  const [real, imaginary] = [re, im].map((x) => x.unsqueeze(2).mul(identity));
  return concat([concat([real, imaginary.neg()], 2), concat([imaginary, real], 2)], 1);
}
