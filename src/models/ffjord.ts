import { ndarray, zeros } from '../array/index.js';
import { Conv2d, ConvTranspose2d, Linear, Module, parameter } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import {
  concat,
  constant,
  conv2d,
  convTranspose2d,
  gradients,
  linear,
  softplus,
  type Tensor,
  type Variable,
} from '../tensor/index.js';
import { squeeze2x2, unsqueeze2x2 } from './flows/index.js';

/** dy/dt = f(t, y): a scalar time and a state [N, ...], whose dtype the weights take on. */
export interface VectorField extends Module {
  forward(t: Tensor, y: Tensor): Tensor;
}

export const odeLayerTypes = [
  'ignore',
  'hyper',
  'squash',
  'concat',
  'concat_v2',
  'concatsquash',
  'concatcoord',
  'blend',
] as const;
/**
 * How a layer sees the time. For y = W x + b: 'ignore' not at all; 'hyper' W and b from a network of t; 'concat' as one
 * more input; 'concat_v2' y + c t; 'squash' y σ(g t + h); 'concatsquash' y σ(g t + h) + c t; 'blend' between two layers;
 * 'concatcoord' concat, for images with the pixel's place.
 */
export type OdeLayerType = (typeof odeLayerTypes)[number];

/** max(x, 0) and |x|, whose gradients of gradients hold in float64, too. */
const positive = (x: Tensor): Tensor => x.mul(x.greater(0).cast(x.dtype));
const magnitude = (x: Tensor): Tensor => positive(x).add(positive(x.neg()));

const nonlinearities = {
  tanh: (x: Tensor) => x.tanh(),
  relu: positive,
  softplus: (x: Tensor) =>
    x.dtype === 'float32' ? softplus(x) : positive(x).add(magnitude(x).neg().exp().add(1).log()),
  elu: (x: Tensor) => positive(x).add(positive(x.neg()).neg().exp().sub(1)),
  swish: (x: Tensor) => x.mul(x.sigmoid()),
  square: (x: Tensor) => x.square(),
  identity: (x: Tensor) => x,
} as const;
export type OdeNonlinearity = keyof typeof nonlinearities;

/** 1 keeps an image's size, 2 halves it, -2 doubles it. */
export type OdeStride = 1 | 2 | -2;

type Layer = Linear | Conv2d | ConvTranspose2d;

const geometry = (stride: OdeStride) =>
  stride === 1 ? { kernel: 3, stride: 1, padding: 1 } : { kernel: 4, stride: 2, padding: 1 };

function layerOf(inputs: number, outputs: number, stride: OdeStride | undefined, rng: Generator): Layer {
  if (stride === undefined) return new Linear(inputs, outputs, rng);
  const { kernel, ...options } = geometry(stride);
  return stride < 0
    ? new ConvTranspose2d(inputs, outputs, kernel, options, rng)
    : new Conv2d(inputs, outputs, kernel, options, rng);
}

function applied(x: Tensor, weight: Tensor, bias: Tensor | undefined, stride: OdeStride | undefined): Tensor {
  const [w, b] = [weight.cast(x.dtype), bias?.cast(x.dtype)];
  if (stride === undefined) return linear(x, w, b);
  const { stride: step, padding } = geometry(stride);
  if (stride > 0) return conv2d(x, w, b, { stride: step, padding });
  const y = convTranspose2d(x, w, { stride: step, padding });
  return b ? y.add(b.reshape([1, -1, 1, 1])) : y;
}

/** A linear layer or a convolution that depends on the time. */
class TimeLayer extends Module {
  readonly layer?: Layer;
  readonly layer0?: Layer;
  readonly layer1?: Layer;
  readonly hyper?: Linear;
  readonly hyperBias?: Linear;
  readonly hyperGate?: Linear;
  readonly hypernet: readonly Linear[];

  constructor(
    private readonly type: OdeLayerType,
    private readonly inputs: number,
    private readonly outputs: number,
    private readonly stride: OdeStride | undefined,
    rng: Generator,
  ) {
    super();
    const make = (extra = 0) => layerOf(inputs + extra, outputs, stride, rng);
    const fromTime = (bias: boolean) => new Linear(1, outputs, { bias }, rng);
    this.hypernet = type === 'hyper' ? this.#hypernet(rng) : [];
    if (type === 'blend') [this.layer0, this.layer1] = [make(), make()];
    else if (type !== 'hyper') this.layer = make(this.#extraInputs());
    if (type === 'squash') this.hyper = fromTime(true);
    if (type === 'concatsquash') this.hyperGate = fromTime(true);
    if (type === 'concatsquash' || type === 'concat_v2') this.hyperBias = fromTime(false);
  }

  forward(t: Tensor, x: Tensor): Tensor {
    const { type, stride } = this;
    const by = (layer: Layer, y = x) => applied(y, layer.weight, layer.bias, stride);
    const time = t.cast(x.dtype).reshape([1, 1]);
    const perOutput = (layer: Linear) => {
      const y = applied(time, layer.weight, layer.bias, undefined);
      return stride === undefined ? y : y.reshape([1, -1, 1, 1]);
    };
    if (type === 'blend') {
      const start = by(this.layer0!);
      return start.add(by(this.layer1!).sub(start).mul(time.reshape([])));
    }
    if (type === 'hyper') return this.#hyper(time, x);
    if (type === 'concat' || type === 'concatcoord') return by(this.layer!, this.#withTime(time, x));
    const y = by(this.layer!);
    const gate = this.hyper ?? this.hyperGate;
    const gated = gate ? y.mul(perOutput(gate).sigmoid()) : y;
    return this.hyperBias ? gated.add(perOutput(this.hyperBias)) : gated;
  }

  #extraInputs(): number {
    const { type, stride } = this;
    if (type === 'concat' || (type === 'concatcoord' && stride === undefined)) return 1;
    return type === 'concatcoord' ? 3 : 0;
  }

  /** t before the inputs; with places after them, t, row and column. */
  #withTime(time: Tensor, x: Tensor): Tensor {
    const plane = (value: Tensor) => value.expand([x.shape[0], 1, ...x.shape.slice(2)]);
    if (this.stride === undefined) return concat([plane(time), x], 1);
    const t = plane(time.reshape([1, 1, 1, 1]));
    if (this.type === 'concat') return concat([t, x], 1);
    const [, , h, w] = x.shape;
    const places = (n: number, shape: number[]) =>
      constant(
        ndarray(
          Array.from({ length: n }, (_, i) => i),
          shape,
        ),
      ).cast(x.dtype);
    return concat([x, t, plane(places(h, [1, 1, h, 1])), plane(places(w, [1, 1, 1, w]))], 1);
  }

  #hypernet(rng: Generator): Linear[] {
    const area = this.stride === undefined ? 1 : geometry(this.stride).kernel ** 2;
    const sizes = [1, ...(this.stride === undefined ? [8] : []), this.inputs * this.outputs * area + this.outputs];
    return sizes.slice(1).map((size, i) => {
      const layer = new Linear(sizes[i], size, rng);
      layer.weight.set(zeros(layer.weight.shape));
      layer.bias!.set(rng.normal([size], 0, 0.01));
      return layer;
    });
  }

  #hyper(time: Tensor, x: Tensor): Tensor {
    const { inputs, outputs, stride } = this;
    const answer = this.hypernet.reduce<Tensor>(
      (y, { weight, bias }, i) => applied(i > 0 ? y.tanh() : y, weight, bias, undefined),
      time,
    );
    const flat = answer.reshape([-1]);
    const bias = flat.slice(0, 0, outputs);
    if (stride === undefined)
      return applied(x, flat.slice(0, outputs, flat.size).reshape([outputs, inputs]), bias, stride);
    const { kernel } = geometry(stride);
    const shape = [...(stride < 0 ? [inputs, outputs] : [outputs, inputs]), kernel, kernel];
    // The source reads the bias from the weights' first numbers; the last ones stay unused.
    return applied(x, flat.slice(0, 0, flat.size - outputs).reshape(shape), bias, stride);
  }
}

export interface OdeNetOptions {
  /** Of one state: [D], or [C, H, W] with `strides`. */
  readonly inputShape: readonly number[];
  readonly hiddenDims: readonly number[];
  /** Convolutions, one stride more than there are hidden layers; without them, linear layers. */
  readonly strides?: readonly OdeStride[];
  /** Default 'concat'. */
  readonly layerType?: OdeLayerType;
  /** Between the layers; default 'softplus'. */
  readonly nonlinearity?: OdeNonlinearity;
  /** Times that images are squeezed before the layers, and back after them; default 0. */
  readonly squeezes?: number;
}

/** The network of a continuous normalizing flow, as in FFJORD (Grathwohl et al. 2019). */
export class OdeNet extends Module implements VectorField {
  readonly layers: readonly TimeLayer[];
  /** Swish's β, one for all layers; [] */
  readonly beta?: Variable;
  readonly #options: OdeNetOptions;

  /** @throws RangeError for an unknown layer type or nonlinearity, or strides that do not fit the layers. */
  constructor(options: OdeNetOptions, rng: Generator) {
    super();
    const { inputShape, hiddenDims, strides, layerType = 'concat', nonlinearity = 'softplus' } = options;
    if (!odeLayerTypes.includes(layerType))
      throw new RangeError(`OdeNet: layerType '${layerType}', expected one of ${odeLayerTypes.join(', ')}`);
    if (!Object.hasOwn(nonlinearities, nonlinearity))
      throw new RangeError(
        `OdeNet: nonlinearity '${nonlinearity}', expected one of ${Object.keys(nonlinearities).join(', ')}`,
      );
    if (strides && strides.length !== hiddenDims.length + 1)
      throw new RangeError(`OdeNet: ${strides.length} strides, expected ${hiddenDims.length + 1}`);
    this.#options = options;
    const sizes = [inputShape[0], ...hiddenDims, inputShape[0]];
    this.layers = sizes.slice(1).map((size, i) => new TimeLayer(layerType, sizes[i], size, strides?.[i], rng));
    if (nonlinearity === 'swish') this.beta = parameter(ndarray([1], []));
  }

  forward(t: Tensor, y: Tensor): Tensor {
    const { nonlinearity = 'softplus', squeezes = 0 } = this.#options;
    const bend = (x: Tensor) =>
      this.beta ? x.mul(this.beta.cast(x.dtype).mul(x).sigmoid()) : nonlinearities[nonlinearity](x);
    const times = Array.from({ length: squeezes });
    let x = times.reduce<Tensor>((image) => squeeze2x2(image), y);
    for (const [i, layer] of this.layers.entries()) x = layer.forward(t, i > 0 ? bend(x) : x);
    return times.reduce<Tensor>((image) => unsqueeze2x2(image), x);
  }
}

/** ∂f/∂y of a scalar sum, in f's dtype. */
const slopeOf = (sum: Tensor, y: Tensor): Tensor => gradients(sum, [y], constant(1, sum.dtype))[0];

/** tr ∂dy/∂y of each sample, [N, 1]: exact, with as many backward passes as a state has numbers. */
export function bruteForceDivergence(dy: Tensor, y: Tensor): Tensor {
  const size = y.size / y.shape[0];
  const flat = dy.reshape([y.shape[0], size]);
  const diagonal = Array.from({ length: size }, (_, i) =>
    slopeOf(flat.slice(1, i, i + 1).sum(), y)
      .reshape([y.shape[0], size])
      .slice(1, i, i + 1),
  );
  return diagonal.reduce((a, b) => a.add(b));
}

/**
 * Hutchinson's estimate eᵀ (∂dy/∂y) e of the trace, [N, 1]: one backward pass.
 * @param e as y, of mean 0 and variance 1: normal, or signs at random (Rademacher's).
 */
export const hutchinsonDivergence = (dy: Tensor, y: Tensor, e: Tensor): Tensor =>
  slopeOf(dy.mul(e).sum(), y)
    .mul(e)
    .reshape([y.shape[0], y.size / y.shape[0]])
    .sum(1, true);

/** The slopes of a continuous flow's state: dy/dt, and d log p / dt = -tr ∂f/∂y, [N, 1]. */
export interface FlowSlopes {
  readonly y: Tensor;
  readonly logp: Tensor;
}

/**
 * What an ODE solver integrates for a continuous normalizing flow.
 * @param e noise of Hutchinson's trace, the same throughout a solution; without it the trace is exact.
 * @param residual f(t, y) - y in place of f; default false.
 */
export function continuousFlowSlopes(
  field: VectorField,
  t: Tensor,
  y: Tensor,
  e?: Tensor,
  residual = false,
): FlowSlopes {
  const dy = field.forward(t, y);
  if (`${dy.shape}` !== `${y.shape}`)
    throw new RangeError(`continuous flow: the field gives [${dy.shape}] for states [${y.shape}], expected the same`);
  const divergence = e ? hutchinsonDivergence(dy, y, e) : bruteForceDivergence(dy, y);
  if (!residual) return { y: dy, logp: divergence.neg() };
  return { y: dy.sub(y), logp: divergence.neg().add(y.size / y.shape[0]) };
}
