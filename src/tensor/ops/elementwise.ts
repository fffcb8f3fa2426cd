import { type DType, ndarray, type Shape } from '../../array/index.js';
import { type Attributes, dataTypes } from '../../runtime/index.js';
import { apply, type Emitter, type NodeView, type Op } from '../op.js';
import { broadcast, isFloat } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { affine } from './affine.js';
import { constant, scalarValue } from './leaves.js';
import { sumTo } from './reduce.js';

type Nothing = Record<string, never>;
const none: Nothing = {};

interface UnaryOptions {
  type?: string;
  domain?: string;
  attributes?: Attributes;
  gradient?: (x: Tensor, y: Tensor) => (g: Tensor) => Tensor;
  expression?: (x: string) => string;
  bool?: boolean;
}

function unary(name: string, o: UnaryOptions): (x: Tensor) => Tensor {
  const { gradient } = o;
  const op: Op<Nothing> = {
    name,
    infer: ([x]) => {
      if (o.bool ? x.dtype !== 'bool' : x.dtype === 'bool') throw new TypeError(`${name}: does not take ${x.dtype}`);
      return { shape: x.shape, dtype: x.dtype };
    },
    emit: (e, { inputs }) =>
      e.node(o.type ?? name[0].toUpperCase() + name.slice(1), [e.name(inputs[0])], o.attributes, { domain: o.domain }),
    gradient: gradient && (({ inputs, output }: NodeView) => [gradient(inputs[0], output)]),
    elementwise: true,
    expression: o.expression as Op['expression'],
  };
  return (x) => apply(op, [x], none);
}

export const neg = unary('neg', { gradient: () => (g) => g.neg(), expression: (x) => `-${x}` });
export const exp = unary('exp', { gradient: (_, y) => (g) => g.mul(y), expression: (x) => `Math.exp(${x})` });
export const log = unary('log', { gradient: (x) => (g) => g.div(x), expression: (x) => `Math.log(${x})` });
export const sqrt = unary('sqrt', {
  gradient: (_, y) => (g) => g.mul(0.5).div(y),
  expression: (x) => `Math.sqrt(${x})`,
});
export const reciprocal = unary('reciprocal', {
  gradient: (_, y) => (g) => g.mul(y.square()).neg(),
  expression: (x) => `1 / ${x}`,
});
export const abs = unary('abs', { gradient: (x) => (g) => g.mul(sign(x)), expression: (x) => `Math.abs(${x})` });
export const sign = unary('sign', { gradient: (x) => () => constant(0).expand(x.shape) });
export const floor = unary('floor', { gradient: (x) => () => constant(0).expand(x.shape) });
export const ceil = unary('ceil', { gradient: (x) => () => constant(0).expand(x.shape) });
export const round = unary('round', { gradient: (x) => () => constant(0).expand(x.shape) });
export const sin = unary('sin', { gradient: (x) => (g) => g.mul(cos(x)) });
export const cos = unary('cos', { gradient: (x) => (g) => g.mul(sin(x)).neg() });
export const tanh = unary('tanh', { gradient: (_, y) => (g) => g.mul(y.square().neg().add(1)) });
export const sigmoid = unary('sigmoid', { gradient: (_, y) => (g) => g.mul(y.sub(y.square())) });
export const erf = unary('erf', {
  gradient: (x) => (g) => g.mul(exp(x.square().neg())).mul(2 / Math.sqrt(Math.PI)),
});
/** log(1 + exp x) */
export const softplus = unary('softplus', { gradient: (x) => (g) => g.mul(sigmoid(x)) });
export const not = unary('not', { bool: true });

const GELU_LINEAR = 2 * Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715 * GELU_LINEAR;
const geluErf = unary('gelu', {
  // Phi(x) + x phi(x)
  gradient: (x) => (g) => {
    const cdf = erf(x.mul(Math.SQRT1_2)).add(1).mul(0.5);
    return g.mul(cdf.add(x.mul(exp(x.square().mul(-0.5))).mul(1 / Math.sqrt(2 * Math.PI))));
  },
});
const geluTanh = unary('geluTanh', {
  type: 'FastGelu',
  domain: 'com.microsoft',
  // y = x s with s = sigmoid(v), v = 2u = x r, u the argument of the paper's tanh: dy/dx = s + x v' s (1 - s), and
  // x v' = 3 v - 2 GELU_LINEAR x. With s' = 1 - s = sigmoid(-v) that is 1 - s' (1 + 2 GELU_LINEAR y - 3 r y).
  gradient: (x, y) => (g) => {
    const minusR = affine(x.square(), -GELU_CUBIC, -GELU_LINEAR);
    const rest = sigmoid(minusR.mul(x));
    const third = affine(y, (2 / 3) * GELU_LINEAR, 1 / 3, minusR.mul(y));
    return affine(third.mul(rest), -3, 1).mul(g);
  },
});
/** GELU (Hendrycks & Gimpel): exact with `erf`, or its `tanh` approximation. */
export const gelu = (x: Tensor, form: 'erf' | 'tanh' = 'erf'): Tensor => (form === 'tanh' ? geluTanh(x) : geluErf(x));

const sigmoidLinear: Op<{ alpha: number }> = {
  name: 'sigmoidLinear',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs }, { alpha }) =>
    e.node('QuickGelu', [e.name(inputs[0])], { alpha: { f: alpha } }, { domain: 'com.microsoft' }),
  // y = x s; dy/dx = s (1 + alpha (x - y))
  gradient: ({ inputs: [x], output: y, attrs: { alpha } }) => [
    (g) => {
      // First, so that what comes after it may overwrite x.
      const s = sigmoid(x.mul(alpha));
      const rest = alpha === 1 ? affine(y, -1, 1, x) : affine(x.sub(y), alpha, 1);
      return rest.mul(s).mul(g);
    },
  ],
  elementwise: true,
};
/** SiLU / swish: x sigmoid(x). */
export const silu = (x: Tensor): Tensor => apply(sigmoidLinear, [x], { alpha: 1 });
/** OpenAI's quick GELU: x sigmoid(1.702 x). */
export const quickGelu = (x: Tensor): Tensor => apply(sigmoidLinear, [x], { alpha: 1.702 });
export const relu = (x: Tensor): Tensor => maximum(x, constant(0, x.dtype));
export const mish = (x: Tensor): Tensor => x.mul(tanh(softplus(x)));

interface BinaryOptions {
  type?: string;
  attributes?: Attributes;
  result?: DType;
  operands?: DType;
  gradient?: (a: Tensor, b: Tensor, y: Tensor) => readonly ((g: Tensor) => Tensor)[];
  expression?: (a: string, b: string) => string;
}

function binary(name: string, o: BinaryOptions): (a: Tensor, b: Tensor) => Tensor {
  const { gradient } = o;
  const op: Op<Nothing> = {
    name,
    infer: ([a, b]) => {
      if (a.dtype !== b.dtype || (o.operands && a.dtype !== o.operands))
        throw new TypeError(
          `${name}: takes two tensors of one dtype${o.operands ? ` (${o.operands})` : ''}, got ${a.dtype} and ${b.dtype}`,
        );
      return { shape: broadcast(a.shape, b.shape, name), dtype: o.result ?? a.dtype };
    },
    emit: (e, { inputs, shape }) => {
      const operands = inputs.map((x) => operand(e, x, shape));
      return e.node(o.type ?? name[0].toUpperCase() + name.slice(1), operands, o.attributes);
    },
    gradient:
      gradient &&
      (({ inputs: [a, b], output }: NodeView) => {
        const rules = gradient(a, b, output);
        // A broadcast operand received many copies: its gradient is their sum.
        return [a, b].map((x, i) => (g: Tensor) => sumTo(rules[i](g), x.shape));
      }),
    elementwise: true,
    expression: o.expression as Op['expression'],
  };
  return (a, b) => apply(op, [a, b], none);
}

/** A single number gets the rank of the result: else onnxruntime's loop runs along the last axis, even where that is 1. */
function operand(e: Emitter, x: Tensor, shape: Shape): string {
  if (x.size !== 1 || x.rank === shape.length || shape.at(-1) !== 1) return e.name(x);
  const ones = shape.map(() => 1);
  const number = scalarValue(x);
  if (number !== undefined) return e.constant(ndarray([number], ones, x.dtype));
  const reshaped = x.reshape(ones);
  e.compute([reshaped]);
  return e.name(reshaped);
}

export const add = binary('add', { gradient: () => [(g) => g, (g) => g], expression: (a, b) => `${a} + ${b}` });
export const sub = binary('sub', { gradient: () => [(g) => g, (g) => g.neg()], expression: (a, b) => `${a} - ${b}` });
export const mul = binary('mul', {
  gradient: (a, b) => [(g) => g.mul(b), (g) => g.mul(a)],
  expression: (a, b) => `${a} * ${b}`,
});
export const div = binary('div', {
  gradient: (_, b, y) => [(g) => g.div(b), (g) => g.mul(y).div(b).neg()],
  expression: (a, b) => `${a} / ${b}`,
});
export const pow = binary('pow', {
  gradient: (a, b, y) => [
    (g) => g.mul(b).mul(a.pow(b.sub(1))),
    // 0^b is flat in b, where log would give -Infinity.
    (g) => g.mul(y).mul(log(where(a.greater(0), a, constant(1)))),
  ],
  expression: (a, b) => `Math.pow(${a}, ${b})`,
});
// On a tie the gradient is shared, as in PyTorch.
const winner = (a: Tensor, b: Tensor, g: Tensor): Tensor =>
  g.mul(a.greater(b).cast('float32').add(a.equal(b).cast('float32').mul(0.5)));
export const maximum = binary('maximum', {
  type: 'Max',
  gradient: (a, b) => [(g) => winner(a, b, g), (g) => winner(b, a, g)],
  expression: (a, b) => `Math.max(${a}, ${b})`,
});
export const minimum = binary('minimum', {
  type: 'Min',
  gradient: (a, b) => [(g) => winner(b, a, g), (g) => winner(a, b, g)],
  expression: (a, b) => `Math.min(${a}, ${b})`,
});
/** C's remainder for floats (`fmod`), Python's for integers. */
export const mod = (a: Tensor, b: Tensor): Tensor => (isFloat(a.dtype) ? fmod(a, b) : integerMod(a, b));
const fmod = binary('fmod', { type: 'Mod', attributes: { fmod: { i: 1 } } });
const integerMod = binary('mod', {});
export const equal = binary('equal', { result: 'bool' });
export const less = binary('less', { result: 'bool' });
export const lessEqual = binary('lessEqual', { type: 'LessOrEqual', result: 'bool' });
export const greater = binary('greater', { result: 'bool' });
export const greaterEqual = binary('greaterEqual', { type: 'GreaterOrEqual', result: 'bool' });
export const and = binary('and', { operands: 'bool', result: 'bool' });
export const or = binary('or', { operands: 'bool', result: 'bool' });

const whereOp: Op<Nothing> = {
  name: 'where',
  infer: ([c, a, b]) => {
    if (c.dtype !== 'bool' || a.dtype !== b.dtype)
      throw new TypeError(`where: takes (bool, T, T), got (${c.dtype}, ${a.dtype}, ${b.dtype})`);
    return { shape: broadcast(c.shape, broadcast(a.shape, b.shape, 'where'), 'where'), dtype: a.dtype };
  },
  emit: (e, { inputs }) =>
    e.node(
      'Where',
      inputs.map((x) => e.name(x)),
    ),
  gradient: ({ inputs: [c, a, b] }) => [
    null,
    (g) => sumTo(where(c, g, constant(0)), a.shape),
    (g) => sumTo(where(c, constant(0), g), b.shape),
  ],
};
/** `a` where the condition holds, else `b`; all three broadcast. */
export const where = (condition: Tensor, a: Tensor, b: Tensor): Tensor => apply(whereOp, [condition, a, b], none);

/** What onnxruntime computes a cast to. */
const castable: ReadonlySet<DType> = new Set(['float32', 'uint8', 'int32', 'int64', 'bool', 'float16', 'float64']);

const castOp: Op<{ dtype: DType }> = {
  name: 'cast',
  infer: ([x], { dtype }) => {
    if (!castable.has(dtype)) throw new TypeError(`cast: to ${dtype} is not supported`);
    return { shape: x.shape, dtype };
  },
  emit: (e, { inputs }, { dtype }) => e.node('Cast', [e.name(inputs[0])], { to: { i: dataTypes[dtype] } }),
  gradient: ({ inputs: [x] }) => [isFloat(x.dtype) ? (g) => cast(g, x.dtype) : null],
};
export const cast = (x: Tensor, dtype: DType): Tensor => (x.dtype === dtype ? x : apply(castOp, [x], { dtype }));

const stop: Op<Nothing> = {
  name: 'stopGradient',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs }) => [e.name(inputs[0])],
};
/** The same values, through which no gradient flows. */
export const stopGradient = (x: Tensor): Tensor => apply(stop, [x], none);

/** Accepts a number wherever a tensor of the same dtype would do. */
export function lift(x: Tensor | number, like: Tensor): Tensor {
  return typeof x === 'number' ? constant(x, like.dtype) : x;
}
