/** Householder reflections from both sides make the matrix tridiagonal (Golub and Van Loan, 8.3.1). Overwrites it. */
function tridiagonalize(a: Float64Array, n: number): { diagonal: Float64Array; beside: Float64Array } {
  const beside = new Float64Array(n);
  const v = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    let square = 0;
    for (let i = k + 1; i < n; i++) {
      v[i] = a[k * n + i];
      square += v[i] * v[i];
    }
    const alpha = v[k + 1] > 0 ? -Math.sqrt(square) : Math.sqrt(square);
    beside[k] = alpha;
    if (square === 0) continue;
    const beta = 1 / (square - alpha * v[k + 1]); // 2 / |v|^2 once alpha is taken off its first element
    v[k + 1] -= alpha;
    let along = 0;
    for (let i = k + 1; i < n; i++) {
      let sum = 0;
      for (let j = k + 1; j < n; j++) sum += a[i * n + j] * v[j];
      w[i] = beta * sum;
      along += w[i] * v[i];
    }
    for (let i = k + 1; i < n; i++) w[i] -= 0.5 * beta * along * v[i];
    for (let i = k + 1; i < n; i++) for (let j = k + 1; j < n; j++) a[i * n + j] -= v[i] * w[j] + w[i] * v[j];
  }
  if (n > 1) beside[n - 2] = a[(n - 1) * n + n - 2];
  return { diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]), beside };
}

/** One implicit QR step with Wilkinson's shift on rows low..high (Golub and Van Loan, 8.3.2). */
function qrStep(d: Float64Array, e: Float64Array, low: number, high: number): void {
  const half = (d[high - 1] - d[high]) / 2;
  const last = e[high - 1];
  const shift = d[high] - (last * last) / (half + (half < 0 ? -1 : 1) * Math.hypot(half, last));
  let x = d[low] - shift;
  let z = e[low];
  for (let k = low; k < high; k++) {
    const r = Math.hypot(x, z);
    const [c, s] = r === 0 ? [1, 0] : [x / r, z / r];
    if (k > low) e[k - 1] = r;
    const [a, b, h] = [d[k], d[k + 1], e[k]];
    d[k] = c * c * a + 2 * c * s * h + s * s * b;
    d[k + 1] = s * s * a - 2 * c * s * h + c * c * b;
    e[k] = c * s * (b - a) + (c * c - s * s) * h;
    if (k + 1 < high) {
      x = e[k];
      z = s * e[k + 1];
      e[k + 1] *= c;
    }
  }
}

/**
 * The eigenvalues of a symmetric matrix, in ascending order.
 * @param matrix [n, n] row by row; not changed.
 * @throws Error when it holds numbers that are not finite.
 */
export function symmetricEigenvalues(matrix: Float64Array | Float32Array, n: number): Float64Array {
  const { diagonal: d, beside: e } = tridiagonalize(Float64Array.from(matrix), n);
  const negligible = (k: number): boolean => Math.abs(e[k]) <= Number.EPSILON * (Math.abs(d[k]) + Math.abs(d[k + 1]));
  let steps = 0;
  for (let high = n - 1; high > 0; ) {
    if (negligible(high - 1)) {
      high--;
      continue;
    }
    let low = high - 1;
    while (low > 0 && !negligible(low - 1)) low--;
    if (++steps > 60 * n) throw new Error('eigenvalues: no convergence (is every number finite?)');
    qrStep(d, e, low, high);
  }
  return d.sort();
}
