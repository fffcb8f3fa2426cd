/** Rounds to the nearest integer, halves to the even one, as numpy and torch do. */
export function roundHalfToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** `count` evenly spaced numbers from `start` to `end`, both included, in float64; only `start` when count is 1. */
export function linspace(start: number, end: number, count: number): Float64Array {
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  const values = Float64Array.from({ length: count }, (_, i) => start + step * i);
  if (count > 1) values[count - 1] = end;
  return values;
}

/**
 * The same in float32, bit for bit as `torch.linspace` on an x86-64 CPU: both halves are counted from their own end,
 * and whole pairs of 8-lane vectors are filled from their first element.
 */
export function linspaceFloat32(start: number, end: number, count: number): Float32Array<ArrayBuffer> {
  const first = Math.fround(start);
  const last = Math.fround(end);
  const step = count > 1 ? Math.fround(Math.fround(last - first) / (count - 1)) : 0;
  const direct = (i: number) =>
    Math.fround(i < Math.floor(count / 2) || count === 1 ? first + step * i : last - step * (count - 1 - i));
  const vectorized = count - (count % 16);
  return Float32Array.from({ length: count }, (_, i) => {
    const lane = i < vectorized ? i % 8 : 0;
    return direct(i - lane) + Math.fround(step * lane);
  });
}
