const f = Math.fround;

/** Of log(1 + y), -0.3 < y < 0.42, the quotient of two polynomials, highest power first. */
const numerator = [0.025899792, 0.38088378, 1.4800006, 2.1126776, 1, 0].map(f);
const denominator = [0.0058750953, 0.15464763, 0.9864943, 2.453006, 2.6126776, 1].map(f);

/**
 * The natural logarithm of a positive float32 number, bit for bit as numpy computes it on x86-64 (the last bits differ
 * from the correctly rounded one for a tenth of all numbers): for tables whose differences diffusers relies on.
 */
export function numpyLog(x: number): number {
  let exponent = Math.floor(Math.log2(x)) + 1;
  let mantissa = x / 2 ** exponent; // of [0.5, 1), but for the rounding of log2
  if (mantissa >= 1) exponent++;
  if (mantissa < 0.5) exponent--;
  mantissa = x / 2 ** exponent;
  if (mantissa <= f(Math.SQRT1_2)) exponent--;
  const y = x / 2 ** exponent - 1;
  const evaluate = (coefficients: readonly number[]) => coefficients.reduce((value, c) => f(value * y + c));
  return f(exponent * f(Math.LN2) + f(evaluate(numerator) / evaluate(denominator)));
}
