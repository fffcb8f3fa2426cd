import { type NdArray, ndarray } from '../../src/array/index.js';
import {
  type AffinePath,
  assignment,
  type ConditionalFlow,
  condOtPath,
  convertOnPath,
  cosinePath,
  linearVpPath,
  onFlow,
  onPath,
  type PathPrediction,
  polynomialPath,
  schrodingerBridgeFlow,
  scoreWeight,
  sinkhornPlan,
  squaredDistances,
  straightFlow,
  targetFlow,
  trigonometricFlow,
  vpPath,
} from '../../src/diffusion/index.js';
import { compile, concat, gradients, linear, silu, type Tensor, variable } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** t [N] so that it broadcasts with x [N, ...]. */
const wide = (t: Tensor, x: Tensor): Tensor => t.reshape([t.shape[0], ...x.shape.slice(1).map(() => 1)]);

const conversions: readonly (readonly [PathPrediction, PathPrediction])[] = [
  ['target', 'velocity'],
  ['epsilon', 'velocity'],
  ['velocity', 'target'],
  ['epsilon', 'target'],
  ['velocity', 'epsilon'],
  ['target', 'epsilon'],
];

const path =
  (of: (config: Readonly<Record<string, number>>) => AffinePath): Adapter =>
  (reference) => {
    const way = of(reference.config as Record<string, number>);
    const run = compile((x0: Tensor, x1: Tensor, t: Tensor, v: Tensor) => {
      const at = wide(t, x0);
      const { x, velocity } = onPath(way, x0, x1, at);
      const { alpha, sigma, dAlpha, dSigma } = way.at(t);
      return {
        'out.x_t': x,
        'out.dx_t': velocity,
        'out.alpha_t': alpha.add(0),
        'out.sigma_t': sigma,
        'out.d_alpha_t': dAlpha,
        'out.d_sigma_t': dSigma,
        'out.snr_inverse': way.snrInverse(alpha.div(sigma)),
        ...Object.fromEntries(
          conversions.map((pair) => [`out.${pair[0]}_to_${pair[1]}`, convertOnPath(way, pair, v, x, at)]),
        ),
      };
    });
    const [x0, x1, t, v] = ['x_0', 'x_1', 't', 'v'].map((name) => reference.input(name));
    return run(x0, x1, t, v) as Promise<Outputs>;
  };

const flow =
  (of: (sigma: number) => ConditionalFlow): Adapter =>
  async (reference) => {
    const matcher = of(Number(reference.config.sigma));
    const [x0, x1, t, eps] = ['x0', 'x1', 't', 'eps'].map((name) => reference.input(name));
    if (reference.weights.size > 0) return loss(reference, matcher);
    const constant =
      !('out.sigma_t' in Object.fromEntries(reference.tensors)) ||
      reference.tensors.get('out.sigma_t')!.shape.length === 0;
    const run = compile((x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) => {
      const at = wide(t, x0);
      const { x, velocity } = onFlow(matcher, x0, x1, at, eps);
      const [deviation, weight] = [matcher.deviation(t), scoreWeight(matcher, t)].map((y) =>
        constant ? y.slice(0, 0, 1).reshape([]) : y,
      );
      return {
        'out.mu_t': matcher.mean(x0, x1, at),
        'out.sigma_t': deviation,
        'out.xt': x,
        'out.ut': velocity,
        'out.lambda': weight,
      };
    });
    return run(x0, x1, t, eps);
  };

/** A small network trained on the flow: its loss and gradients. */
async function loss(reference: ReferenceCase, matcher: ConditionalFlow): Promise<Outputs> {
  const weights = new Map([...reference.weights].map(([name, array]) => [name, variable(array)]));
  const layer = (x: Tensor, name: string) => linear(x, weights.get(`${name}.weight`)!, weights.get(`${name}.bias`)!);
  const run = compile((x0: Tensor, x1: Tensor, t: Tensor, eps: Tensor) => {
    const { x, velocity } = onFlow(matcher, x0, x1, wide(t, x0), eps);
    const v = layer(silu(layer(silu(layer(concat([x, wide(t, x0)], 1), 'l1')), 'l2')), 'l3');
    const loss = v.sub(velocity).square().mean();
    const slopes = gradients(loss, [...weights.values()]);
    return {
      'out.xt': x,
      'out.ut': velocity,
      'out.v': v,
      'out.loss': loss,
      ...Object.fromEntries([...weights.keys()].map((name, i) => [`grad.${name}`, slopes[i]])),
    };
  });
  const [x0, x1, t, eps] = ['x0', 'x1', 't', 'eps'].map((name) => reference.input(name));
  return run(x0, x1, t, eps) as Promise<Outputs>;
}

const costs = (reference: ReferenceCase): Float64Array[] =>
  squaredDistances(reference.input('x0') as NdArray<'float32'>, reference.input('x1') as NdArray<'float32'>);

const planArray = (rows: readonly (readonly number[] | Float64Array)[]): NdArray =>
  ndarray(Float64Array.from(rows.flatMap((row) => [...row])), [rows.length, rows[0].length], 'float64');

function exact(reference: ReferenceCase): Outputs {
  const cost = costs(reference);
  const columns = [...assignment(cost)];
  const n = columns.length;
  return {
    'out.plan': planArray(columns.map((column) => Array.from({ length: n }, (_, j) => (j === column ? 1 / n : 0)))),
    'out.permutation': ndarray(columns, [n], 'int64'),
    'out.cost': ndarray(Float64Array.of(columns.reduce((sum, j, i) => sum + cost[i][j] / n, 0)), [], 'float64'),
  };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  'CondOTProbPath / CondOTScheduler': path(condOtPath),
  'AffineProbPath / CondOTScheduler': path(condOtPath),
  'AffineProbPath / PolynomialConvexScheduler': path(({ n }) => polynomialPath(n)),
  'AffineProbPath / VPScheduler': path(({ beta_min: betaMin, beta_max: betaMax }) => vpPath({ betaMin, betaMax })),
  'AffineProbPath / LinearVPScheduler': path(linearVpPath),
  'AffineProbPath / CosineScheduler': path(cosinePath),
  ConditionalFlowMatcher: flow(straightFlow),
  TargetConditionalFlowMatcher: flow(targetFlow),
  SchrodingerBridgeConditionalFlowMatcher: flow(schrodingerBridgeFlow),
  VariancePreservingConditionalFlowMatcher: flow(trigonometricFlow),
  'OTPlanSampler.get_map': exact,
  'Sinkhorn-Knopp, converged, float64': (reference) => {
    const { reg } = reference.description.call as { reg: number };
    return { 'out.plan': planArray(sinkhornPlan(costs(reference), reg)) };
  },
};
