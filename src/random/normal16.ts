/**
 * Box-Muller on blocks of 16 uniform numbers, in the single-precision arithmetic of PyTorch's AVX2 kernel: Cephes'
 * logf and sincosf (Moshier; the vector form is Pommier's avx_mathfun) with fused multiply-adds. Every bit agrees
 * with what an ordinary x86-64 build of PyTorch draws.
 */

const f = Math.fround;
/** A fused multiply-add: the product of two floats is exact in double precision. */
const fma = (a: number, b: number, c: number): number => f(a * b + c);

const twoPi = f(2 * Math.PI);
const fourOverPi = f(1.27323954473516);
const sqrtHalf = 0xb504f3; // times 2^-24
const [l0, l1, l2, l3, l4, l5, l6, l7, l8] = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
].map(f);
const [ln2High, ln2Low] = [0.693359375, -2.1219444e-4].map(f);
const [quarterPi1, quarterPi2, quarterPi3] = [0.78515625, 2.4187564849853516e-4, 3.774894977445941e-8].map(f);
const [c0, c1, c2] = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2].map(f);
const [s0, s1, s2] = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1].map(f);

/** Sine and cosine, told apart by address: a branch on random bits would be mispredicted every other time. */
const pair = new Float32Array(2);

/** log(k / 2^24) of an integer k in 1..2^24. */
function log(k: number): number {
  const zeros = Math.clz32(k);
  const mantissa = (k << zeros) >>> 8; // k / 2^24 is mantissa / 2^24, in 0.5..1, times 2^(8 - zeros)
  const low = (mantissa - sqrtHalf) >>> 31; // 1 below sqrt(1/2), where twice as much is nearer to 1
  const exponent = 8 - zeros - low;
  const x = (mantissa << low) * 2 ** -24 - 1; // -0.29..0.41, exact
  const square = f(x * x);
  let y = fma(fma(fma(fma(l0, x, l1), x, l2), x, l3), x, l4);
  y = fma(fma(fma(fma(y, x, l5), x, l6), x, l7), x, l8);
  y = fma(f(y * x), square, f(exponent * ln2Low));
  return fma(exponent, ln2High, f(x + fma(square, -0.5, y)));
}

/**
 * Turns uniform numbers of [0, 1) into normal ones, in place: the first eight of a block give the radii, the other
 * eight the angles.
 */
export function normal16(data: Float32Array, start: number, mean: number, std: number): void {
  // Two loops, because short bodies let the processor work on several numbers at once.
  for (let i = start; i < start + 8; i++) data[i] = f(Math.sqrt(-2 * log(2 ** 24 - data[i] * 2 ** 24)));
  for (let i = start; i < start + 8; i++) {
    const radius = data[i];
    let x = f(twoPi * data[i + 8]);
    const octant = (f(x * fourOverPi) + 1) & ~1; // the cast of AVX truncates; here `&` does
    x = fma(octant, -quarterPi3, fma(octant, -quarterPi2, fma(octant, -quarterPi1, x)));
    const square = f(x * x);
    const evenTerms = f(fma(fma(c0, square, c1), square, c2) * square);
    const even = f(fma(evenTerms, square, -0.5 * square) + 1);
    const odd = fma(f(fma(fma(s0, square, s1), square, s2) * square), x, x);
    const swap = (octant >> 1) & 1;
    pair[swap] = odd;
    pair[swap ^ 1] = even;
    data[i] = fma(f(radius * pair[1] * (1 - (((octant + 2) >> 1) & 2))), std, mean);
    data[i + 8] = fma(f(radius * pair[0] * (1 - ((octant >> 1) & 2))), std, mean);
  }
}
