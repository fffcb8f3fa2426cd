import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import {
  type OdeLayerType,
  OdeNet,
  type OdeNonlinearity,
  type OdeStride,
  type VectorField,
} from '../../src/models/index.js';
import { Linear, Module } from '../../src/nn/index.js';
import { ContinuousFlow } from '../../src/pipelines/index.js';
import { Generator } from '../../src/random/index.js';
import type { OdeMethod } from '../../src/samplers/index.js';
import { compile, concat, linear, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { lossOf, lossWeights, type Rename, withWeights } from './h_flows.js';

const netConfig = z.object({
  hidden_dims: z.array(z.number()),
  input_shape: z.array(z.number()),
  strides: z.array(z.number().nullable()).nullish(),
  conv: z.boolean().default(false),
  layer_type: z.string().default('concat'),
  nonlinearity: z.string().default('softplus'),
  num_squeeze: z.number().default(0),
});

function odeNet(reference: ReferenceCase): OdeNet {
  const config = netConfig.parse(reference.config);
  return new OdeNet(
    {
      inputShape: config.input_shape,
      hiddenDims: config.hidden_dims,
      strides: config.conv ? (config.strides as OdeStride[]) : undefined,
      layerType: config.layer_type as OdeLayerType,
      nonlinearity: config.nonlinearity as OdeNonlinearity,
      squeezes: config.num_squeeze,
    },
    new Generator(0),
  );
}

/** Ours has no underscores; the source counts the hypernetwork's tanh as a layer. */
const ours: Rename = (name) => ({
  name: name
    .replace(/^activation_fns\.\d+\.beta$/, 'beta')
    .replace(/\._/g, '.')
    .replace(/hypernet\.(\d+)\./, (_, i: string) => `hypernet.${Number(i) / 2}.`)
    .replace(/hypernet\.(weight|bias)$/, 'hypernet.0.$1'),
});

const net: Adapter = async (reference) => {
  const field = odeNet(reference);
  const slopes = withWeights(field, reference.weights, ours);
  const run = compile((t: Tensor, y: Tensor, weights: Tensor[]): Record<string, Tensor> => {
    const out = field.forward(t, y);
    const loss = lossOf(reference, [out], weights);
    return { out, ...(loss && { 'out.loss': loss, ...slopes(loss) }) };
  });
  return run(reference.input('t'), reference.input('y'), lossWeights(reference));
};

const solverCall = z.object({
  call: z.object({
    divergence_fn: z.enum(['brute_force', 'approximate']),
    solver: z.string(),
    atol: z.number(),
    rtol: z.number(),
    residual: z.boolean().default(false),
    dtype: z.enum(['float32', 'float64']).default('float32'),
  }),
});

const cnf: Adapter = async (reference) => {
  const { call } = reference.read(solverCall);
  const { T } = z.object({ T: z.number().default(1) }).parse(reference.config);
  const field = odeNet(reference);
  const prefix = 'odefunc.diffeq.';
  const inside = [...reference.weights].filter(([name]) => name.startsWith(prefix));
  const weights = new Map(inside.map(([name, array]) => [name.slice(prefix.length), array]));
  withWeights(field, weights, ours);
  const flow = new ContinuousFlow({
    field,
    times: [0, T],
    residual: call.residual,
    dtype: call.dtype,
    solver: { method: call.solver as OdeMethod, rtol: call.rtol, atol: call.atol },
  });
  const x = reference.input('x');
  // The source's evaluation takes the exact trace in two dimensions, whatever it was asked for.
  const exact = call.divergence_fn === 'brute_force' || x.data.length / x.shape[0] === 2;
  const e = exact ? undefined : reference.input('noise_e');
  const solution = await flow.forward(x, e);
  const back = await flow.inverse(solution.y, e, solution.logp);
  const outputs: Outputs = {
    'out.z': solution.y,
    'out.delta_logp': solution.logp,
    'out.reverse_x': back.y,
    'out.reverse_logp': back.logp,
  };
  if (!reference.tensors.has('loss_weight.z')) return outputs;
  const [y, logp] = [reference.given('loss_weight.z'), reference.given('loss_weight.delta_logp')];
  const { parameters } = await flow.gradients({ solution, x, y, logp }, e);
  const loss = dot(solution.y, y) + dot(solution.logp, logp);
  return {
    ...outputs,
    'out.loss': ndarray([loss], [], call.dtype),
    ...Object.fromEntries(
      [...weights.keys()].flatMap((name) => {
        const gradient = parameters.get(ours(name)!.name);
        return gradient ? [[`grad.${prefix}${name}`, gradient]] : [];
      }),
    ),
  };
};

const dot = (a: NdArray, b: NdArray): number =>
  (a.data as Float64Array).reduce((sum, value, i) => sum + value * Number(b.data[i]), 0);

/** The field of the solvers' cases: dy/dt = l2(tanh(l1(cat[y, t]))). */
class CaseField extends Module implements VectorField {
  readonly l1: Linear;
  readonly l2: Linear;

  constructor(dim: number, hidden: number) {
    super();
    const rng = new Generator(0);
    [this.l1, this.l2] = [new Linear(dim + 1, hidden, rng), new Linear(hidden, dim, rng)];
  }

  forward(t: Tensor, y: Tensor): Tensor {
    const by = (layer: Linear, x: Tensor) => linear(x, layer.weight.cast(x.dtype), layer.bias!.cast(x.dtype));
    return by(this.l2, by(this.l1, concat([y, t.reshape([1, 1]).expand([y.shape[0], 1])], 1)).tanh());
  }
}

const trace: Adapter = async (reference) => {
  const { call } = reference.read(
    z.object({
      call: z.object({
        t: z.tuple([z.number(), z.number()]),
        method: z.string(),
        rtol: z.number(),
        atol: z.number(),
        dtype: z.enum(['float32', 'float64']),
      }),
    }),
  );
  const { d, hidden } = z.object({ d: z.number(), hidden: z.number() }).parse(reference.config);
  const field = new CaseField(d, hidden);
  withWeights(field, reference.weights, (name) => ({ name }));
  const flow = (method: string) => {
    // Of the methods with fixed steps the recording took four; it does not say so.
    const solver = { method: method as OdeMethod, rtol: call.rtol, atol: call.atol, stepSize: 1 / 4 };
    return new ContinuousFlow({ field, times: call.t, dtype: call.dtype, solver });
  };
  const x = reference.input('x');
  const kinds = new Set([...reference.tensors.keys()].flatMap((name) => /^out\.(\w+)\./.exec(name)?.[1] ?? []));
  const outputs: Record<string, NdArray> = {};
  for (const kind of kinds) {
    const [noise, method = call.method] = kind.split('_');
    const e = noise === 'exact' ? undefined : reference.input(noise);
    const { y, logp } = await flow(method).forward(x, e);
    outputs[`out.${kind}.z`] = y;
    outputs[`out.${kind}.delta_logp`] = { ...logp, shape: [x.shape[0]] } as NdArray;
    outputs[`out.${kind}.log_prob`] = await flow(method).logProb(x, e);
  }
  return outputs;
};

export const adapters: Readonly<Record<string, Adapter>> = { ODEnet: net, CNF: cnf, odeint: trace };
