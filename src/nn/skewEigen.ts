/**
 * Eigenvalues i w of a real matrix's skew-symmetric part [n, n] (row by row), w ascending, and unit eigenvectors,
 * whose phases are arbitrary. By Jacobi rotations of the symmetric matrix [[0, K], [-K, 0]], which has each w twice:
 * (u, v) of it is the vector u + i v.
 */
export function skewEigen(
  matrix: Float64Array,
  n: number,
): { values: Float64Array; vectors: { re: Float64Array; im: Float64Array }[] } {
  const size = 2 * n;
  const a = new Float64Array(size * size);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      const skew = (matrix[i * n + j] - matrix[j * n + i]) / 2;
      a[i * size + n + j] = skew;
      a[(n + i) * size + j] = -skew;
    }
  const basis = jacobi(a, size);
  const order = Array.from({ length: size }, (_, i) => i).sort((i, j) => a[i * size + i] - a[j * size + j]);
  const kept = order.filter((_, i) => i % 2 === 0);
  return {
    values: Float64Array.from(kept, (i) => a[i * size + i]),
    vectors: kept.map((column) => {
      const entry = (row: number) => basis[row * size + column];
      return {
        re: Float64Array.from({ length: n }, (_, i) => entry(i)),
        im: Float64Array.from({ length: n }, (_, i) => entry(n + i)),
      };
    }),
  };
}

/** Makes a symmetric matrix diagonal in place; returns the orthogonal matrix whose columns are its eigenvectors. */
function jacobi(a: Float64Array, size: number): Float64Array {
  const basis = new Float64Array(size * size);
  for (let i = 0; i < size; i++) basis[i * size + i] = 1;
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < size; p++)
      for (let q = p + 1; q < size; q++) {
        const apq = a[p * size + q];
        off += apq * apq;
        if (apq === 0) continue;
        const theta = (a[q * size + q] - a[p * size + p]) / (2 * apq);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (let k = 0; k < size; k++) rotateEntries(a, k * size + p, k * size + q, c, s);
        for (let k = 0; k < size; k++) rotateEntries(a, p * size + k, q * size + k, c, s);
        for (let k = 0; k < size; k++) rotateEntries(basis, k * size + p, k * size + q, c, s);
      }
    if (off < 1e-26) break;
  }
  return basis;
}

function rotateEntries(x: Float64Array, i: number, j: number, c: number, s: number): void {
  const [xi, xj] = [x[i], x[j]];
  x[i] = c * xi - s * xj;
  x[j] = s * xi + c * xj;
}
