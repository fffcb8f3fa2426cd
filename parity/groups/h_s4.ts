import { ndarray } from '../../src/array/index.js';
import { camelCase } from '../../src/io/index.js';
import {
  type ComplexVector,
  type HippoMeasure,
  hippo,
  nplr,
  rankCorrection,
  respond,
  S4D,
  S4DiagonalKernel,
  S4DKernel,
  type S4DLayerOptions,
  type S4KernelOptions,
  S4LowRankKernel,
  toPairs,
} from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { evaluate, stack } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { loadRenamed, moduleAdapter, runOnInputs } from './h_mixers.js';
import { conjugatePairs, solveOutput, withConjugates } from './h_s4_complex.js';

interface HippoCall {
  readonly measure: HippoMeasure;
  readonly N: number;
  readonly rank?: number;
}
const callOf = ({ description }: ReferenceCase): HippoCall => description.call as HippoCall;
const pairs = (columns: readonly ComplexVector[]) =>
  columns.flatMap(({ re, im }) => Array.from(re, (x, i) => [x, im[i]]).flat());

const matrices: Adapter = (reference) => {
  const { measure, N: n } = callOf(reference);
  const { a, b } = hippo(measure, n);
  const rank = reference.tensors.get('out.P')?.shape[0];
  const rows = rankCorrection(measure, n, rank);
  return {
    'out.A': ndarray([...a], [n, n], 'float64'),
    'out.B': ndarray([...b], [n, 1], 'float64'),
    'out.P': ndarray(
      rows.flatMap((row) => [...row]),
      [rows.length, n],
    ),
  };
};

const decomposition: Adapter = (reference) => {
  const { measure, N: n, rank } = callOf(reference);
  const half = n / 2;
  // Only the phases of the eigenvectors, which nothing fixes, are taken from the case.
  const stored = reference.tensors.get('out.V')?.data as Float32Array | undefined;
  const phase = ({ re, im }: ComplexVector, column: number): readonly [number, number] => {
    if (!stored) return [1, 0];
    let [x, y] = [0, 0];
    for (let i = 0; i < n; i++) {
      const [c, s] = [stored[(i * half + column) * 2], stored[(i * half + column) * 2 + 1]];
      x += c * re[i] + s * im[i];
      y += s * re[i] - c * im[i];
    }
    const size = Math.hypot(x, y);
    return [x / size, y / size];
  };
  const { w, p, b, v } = nplr(measure, n, { rank, phase });
  const byRow = Array.from({ length: n }, (_, i) => v.flatMap(({ re, im }) => [re[i], im[i]])).flat();
  return {
    'out.W': ndarray(pairs([w]), [half, 2]),
    'out.P': ndarray(pairs(p), [p.length, half, 2]),
    'out.B': ndarray(pairs([b]), [half, 2]),
    'out.V': ndarray(byRow, [n, half, 2]),
  };
};

const options = (config: Readonly<Record<string, unknown>>): Record<string, unknown> => {
  const { N: dState, d_state = dState, ...rest } = config;
  return Object.fromEntries(Object.entries({ ...rest, d_state }).map(([name, value]) => [camelCase(name), value]));
};
const lower = (name: string): string => name.toLowerCase();
const lengthOf = (reference: ReferenceCase): number => Number(reference.input('L').data[0]);

const layer = moduleAdapter(
  ({ config }) => new S4D(options(config) as unknown as S4DLayerOptions, new Generator(0)),
  (module, { u }) => module.forward(u),
  (name) => lower(name).replace('output_linear.0.', 'output_linear.'),
);

const kernel = moduleAdapter(
  ({ config }) => new S4DKernel(options(config) as unknown as S4KernelOptions, new Generator(0)),
  (module, _, reference) => ({ 'out.K': module.forward(lengthOf(reference)) }),
  lower,
);

const diagonal = moduleAdapter(
  ({ config }) => new S4DiagonalKernel(options(config) as unknown as S4KernelOptions, new Generator(0)),
  (module, _, reference) => {
    const { a, b, c } = module.discrete();
    return {
      'out.K': module.forward(lengthOf(reference)),
      'out.dA': toPairs(a),
      'out.dB': toPairs(b),
      'out.dC': toPairs(c),
    };
  },
  lower,
);

/** The source stores C (1 - A^l) for its length l: what it stands for is solved for in double precision. */
async function lowRank(reference: ReferenceCase): Promise<Outputs> {
  const { config, weights } = reference;
  const module = new S4LowRankKernel(options(config) as unknown as S4KernelOptions, new Generator(0));
  loadRenamed(module, weights, (name) => (name === 'l_kernel' ? undefined : lower(name)));
  const { a, b } = module.discrete();
  const state = await evaluate({ a, b });
  const [channels, systems, half] = module.c.shape;
  const shape = [channels, systems, 2 * half];
  const stored = module.c.value.data as Float32Array;
  // Over [Re x, Im x], where y = 2 Re(C x).
  const rows = Array.from({ length: channels * systems }, (_, row) =>
    [2, -2].flatMap((factor, part) =>
      Array.from({ length: half }, (_, i) => factor * stored[(row * half + i) * 2 + part]),
    ),
  ).flat();
  const length = Number(weights.get('l_kernel')?.data[0] ?? 0);
  const solved = length > 0 ? solveOutput(state.a, rows, length) : rows;
  const output = withConjugates({ data: solved }, shape, [0.5, -0.5]);
  const pairsOf = (row: number) => [...(output.data as Float32Array)].slice(row * 4 * half, (row * 4 + 2) * half);
  module.c.set(ndarray(Array.from({ length: channels * systems }, (_, row) => pairsOf(row)).flat(), module.c.shape));
  const outputs = await runOnInputs(reference, ({ u }) => ({
    'out.K': module.forward(lengthOf(reference)),
    ...(u && {
      'out.y_recurrent': stack(
        module.systems().map((system) => respond(system, u)),
        1,
      ),
    }),
  }));
  return {
    ...outputs,
    'out.dA': conjugatePairs(state.a),
    'out.dB': withConjugates(state.b, [systems, 2 * half]),
    'out.dC': output,
  };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  'transition, rank_correction': matrices,
  transition: matrices,
  nplr: decomposition,
  S4DKernel: kernel,
  S4D: layer,
  SSMKernelDiag: diagonal,
  SSMKernelDPLR: lowRank,
};
