import { concat, matmul, pad, type Tensor } from '../tensor/index.js';
import { chunked, toeplitz, toMultiple } from './chunks.js';
import { both, type Complex, times } from './complex.js';

/**
 * Discrete state space models x_t = A x_{t-1} + B u_t, y_t = C x_t of H channels with S real states each,
 * seen through chunks of T tokens.
 */
export interface StateSpace {
  /** A^t B for t = 0 .. T - 1 [H, S, T] */
  readonly reach: (length: number) => Tensor;
  /** C A^t for t = 0 .. T - 1 [H, T, S] */
  readonly observe: (length: number) => Tensor;
  /** A function that multiplies states [H, n, S] by A^k, for k a power of two. */
  readonly advance: (k: number) => (states: Tensor) => Tensor;
  /** C [H, 1, S] */
  readonly output: Tensor;
}

/** Impulse responses C A^t B for t = 0 .. length - 1: [H, length]. */
export const impulseResponse = (system: StateSpace, length: number): Tensor =>
  system.output.matmul(system.reach(length)).squeeze(1);

/** Tokens of a chunk: a power of two. */
const size = 64;

/**
 * The answer y of the systems to inputs, from state zero; linear in length but for a logarithm of the chunks' number.
 * Within chunks it is a product with the Toeplitz matrix of the impulse response; what a chunk leaves behind is a
 * state, and the states of all chunks add up by doubling the reach of the sum.
 * @param u [N, H, L] @returns [N, H, L]
 */
export function respond(system: StateSpace, u: Tensor, chunk = size): Tensor {
  const [n, channels, length] = u.shape;
  const span = Math.min(chunk, 2 ** Math.ceil(Math.log2(length)));
  const inputs = chunked(toMultiple(u, 2, span), 2, span).transpose([1, 0, 2, 3]);
  const count = inputs.shape[2];
  const rows = inputs.reshape([channels, n * count, span]);
  const reach = system.reach(span);
  const response = system.output.matmul(reach).squeeze(1);
  const diagonals = pad(response, [
    [0, 0],
    [span - 1, 0],
  ]);
  let y = rows.matmul(toeplitz(diagonals));
  if (count > 1) {
    const left = matmul(rows, reach.flip(2), { transB: true });
    const begins = sumUp(left.reshape([channels, n, count, -1]), system, span);
    const states = system.advance(1)(begins.reshape([channels, n * count, -1]));
    y = y.add(matmul(states, system.observe(span), { transB: true }));
  }
  const all = y.reshape([channels, n, count * span]).transpose([1, 0, 2]);
  return all.slice(2, 0, length);
}

/** The state each chunk begins with, of what each one alone leaves behind. @param left [H, N, chunks, S] */
function sumUp(left: Tensor, system: StateSpace, span: number): Tensor {
  const [channels, n, count, states] = left.shape;
  const later = (x: Tensor, by: number) =>
    pad(x.slice(2, 0, count - by), [
      [0, 0],
      [0, 0],
      [by, 0],
      [0, 0],
    ]);
  let sum = later(left, 1);
  for (let by = 1; by < count; by *= 2) {
    const earlier = later(sum, by).reshape([channels, n * count, states]);
    sum = sum.add(
      system
        .advance(by * span)(earlier)
        .reshape(sum.shape),
    );
  }
  return sum;
}

/** a^0 .. a^(length - 1) along a new last axis, by doubling. */
export function powers(a: Complex, length: number): Complex {
  const first = both(a, (x) => x.unsqueeze(-1));
  let all: Complex = { re: first.re.mul(0).add(1), im: first.im.mul(0) };
  let step = first;
  for (let count = 1; count < length; count *= 2) {
    const more = times(all, step);
    const axis = all.re.rank - 1;
    all = { re: concat([all.re, more.re], axis), im: concat([all.im, more.im], axis) };
    step = times(step, step);
  }
  return both(all, (x) => x.slice(-1, 0, length));
}

/**
 * Systems with diagonal matrices whose states come in conjugate pairs: y = 2 Re(C x).
 * @param a [H, N / 2], and so are b and c.
 */
export function diagonalSystem(a: Complex, b: Complex, c: Complex): StateSpace {
  const weights = times(b, c);
  const output = (x: Complex) => concat([x.re.mul(2), x.im.mul(-2)], 1);
  return {
    output: output(weights).unsqueeze(1),
    reach: (length) => {
      const { re, im } = powers(a, length);
      return concat([re, im], 1);
    },
    observe: (length) =>
      output(
        times(
          both(weights, (x) => x.unsqueeze(2)),
          powers(a, length),
        ),
      ).swapAxes(1, 2),
    advance: (k) => {
      let step = a;
      for (let done = 1; done < k; done *= 2) step = times(step, step);
      const factor = both(step, (x) => x.unsqueeze(1));
      return (states) => {
        const half = states.shape[2] / 2;
        const moved = times({ re: states.slice(2, 0, half), im: states.slice(2, half) }, factor);
        return concat([moved.re, moved.im], 2);
      };
    },
  };
}

/** Systems with full matrices: a [H, S, S], b [H, S, 1], c [H, 1, S]. */
export function denseSystem(a: Tensor, b: Tensor, c: Tensor): StateSpace {
  const squares = [a];
  const power = (i: number): Tensor => {
    while (squares.length <= i) squares.push(squares[squares.length - 1].matmul(squares[squares.length - 1]));
    return squares[i];
  };
  return {
    output: c,
    reach: (length) => {
      let all = b;
      for (let i = 0; 2 ** i < length; i++) all = concat([all, power(i).matmul(all)], 2);
      return all.slice(2, 0, length);
    },
    observe: (length) => {
      let all = c;
      for (let i = 0; 2 ** i < length; i++) all = concat([all, all.matmul(power(i))], 1);
      return all.slice(1, 0, length);
    },
    advance: (k) => (states) => matmul(states, power(Math.log2(k)), { transB: true }),
  };
}
