import { concat, pad, split, type Tensor } from '../tensor/index.js';
import { chunked, toMultiple } from './chunks.js';

/** Tokens between two stops of the scan. */
const size = 8;

/**
 * The recurrence h_t = a_t h_{t-1} + b_t, h_{-1} = 0, along axis 1, elementwise in the others.
 *
 * All chunks of 8 tokens run at once, each from zero; the states at their ends are a recurrence of an eighth of the
 * length, which is solved alike; then each token adds what its chunk began with. Work is linear in length and the
 * graph grows with its logarithm (Blelloch 1990).
 * @param decay a [N, L, ...]
 * @param input b, of that shape
 * @returns h, of that shape
 */
export function linearScan(decay: Tensor, input: Tensor): Tensor {
  if (`${decay.shape}` !== `${input.shape}`)
    throw new RangeError(`linearScan: decay [${decay.shape}] and input [${input.shape}], expected one shape`);
  const length = input.shape[1];
  if (length <= size) return concat(states(split(decay, length, 1), split(input, length, 1)), 1);
  const parts = (x: Tensor) => split(chunked(toMultiple(x, 1, size), 1, size), size, 2);
  const [a, b] = [parts(decay), parts(input)];
  const local = states(a, b);
  const kept = products(a);
  const ends = linearScan(kept[size - 1].squeeze(2), local[size - 1].squeeze(2));
  const begins = before(ends).unsqueeze(2);
  const all = concat(
    local.map((h, i) => kept[i].mul(begins).add(h)),
    2,
  );
  return all.reshape([input.shape[0], -1, ...input.shape.slice(2)]).slice(1, 0, length);
}

function states(a: readonly Tensor[], b: readonly Tensor[]): Tensor[] {
  const h = [b[0]];
  for (let i = 1; i < b.length; i++) h.push(a[i].mul(h[i - 1]).add(b[i]));
  return h;
}

function products(a: readonly Tensor[]): Tensor[] {
  const p = [a[0]];
  for (let i = 1; i < a.length; i++) p.push(p[i - 1].mul(a[i]));
  return p;
}

/** What each element of axis 1 has before it: zero, then the elements but the last. */
function before(x: Tensor): Tensor {
  const shifted = pad(
    x,
    x.shape.map((_, i) => [Number(i === 1), 0]),
  );
  return shifted.slice(1, 0, x.shape[1]);
}
