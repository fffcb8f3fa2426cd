import { type NdArray, ndarray, type Shape } from '../../src/array/index.js';
import {
  adaIN,
  BatchNorm,
  channelStatistics,
  GroupNorm,
  InstanceNorm2d,
  inTraining,
  LayerNorm,
  type Module,
  RMSNorm,
} from '../../src/nn/index.js';
import { compile, gradients, type Tensor, type Variable } from '../../src/tensor/index.js';
import type { Adapter } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Norm = Module & { forward(x: Tensor): Tensor };
/** The arguments of torch.nn's norms. */
interface Settings {
  readonly num_features: number;
  readonly num_groups: number;
  readonly num_channels: number;
  readonly normalized_shape: number | readonly number[];
  readonly dim: number;
  readonly eps?: number;
  readonly momentum?: number | null;
  readonly affine?: boolean;
  readonly elementwise_affine?: boolean;
  readonly bias?: boolean;
  readonly track_running_stats?: boolean;
}

/** The k-th array along the first axis. */
function part({ dtype, shape, data }: NdArray, k: number): NdArray {
  const size = data.length / shape[0];
  return { dtype, shape: shape.slice(1), data: data.slice(k * size, (k + 1) * size) } as NdArray;
}

const stacked = (arrays: readonly NdArray[]): NdArray =>
  ndarray(Float32Array.from(arrays.flatMap((x) => [...(x.data as Float32Array)])), [
    arrays.length,
    ...arrays[0].shape,
  ] as Shape);

/** Evaluation, gradients, some training steps with the statistics they leave, and evaluation again. */
const norm =
  (create: (settings: Settings) => Norm): Adapter =>
  async (reference) => {
    const module = create(reference.config as unknown as Settings);
    const load = () => module.loadStateDict(reference.weights);
    const evaluation = compile((x: Tensor) => module.forward(x));
    const training = compile((x: Tensor) => inTraining(() => module.forward(x)));
    const x = reference.input('x');
    load();
    const outputs: Record<string, NdArray> = {
      [reference.tensors.has('out') ? 'out' : 'out.eval']: await evaluation(x),
      ...(await gradientsOf(reference, module, x)),
    };
    const batches = reference.optionalInput('x_train');
    if (!batches) return outputs;
    load(); // a pass in training mode has moved the statistics
    const results: NdArray[] = [];
    for (let step = 0; step < batches.shape[0]; step++) {
      results.push(await training(part(batches, step)));
      for (const [name, v] of module.namedVariables())
        if (!v.trainable) outputs[`out.step${step}.${name}`] = copyOf(v.value);
    }
    return { ...outputs, 'out.train': stacked(results), 'out.eval_after': await evaluation(x) };
  };

async function gradientsOf(reference: ReferenceCase, module: Norm, x: NdArray): Promise<Record<string, NdArray>> {
  const { gradients: mode } = (reference.description.call ?? {}) as { gradients?: string };
  const names = [...module.namedParameters()];
  const run = compile((x: Tensor, weight: Tensor) => {
    const forward = () => module.forward(x).mul(weight).sum();
    const loss = mode === 'train mode' ? inTraining(forward) : forward();
    const [ofInput, ...ofParameters] = gradients(loss, [x, ...names.map(([, v]: [string, Variable]) => v)]);
    return { 'out.loss': loss, 'grad_in.x': ofInput, ...byName(names, ofParameters) };
  });
  return run(x, reference.given('loss_weight.0'));
}

const byName = (names: readonly [string, Variable][], values: readonly Tensor[]): Record<string, Tensor> =>
  Object.fromEntries(names.map(([name], i) => [`grad.${name}`, values[i]]));

const copyOf = (array: NdArray): NdArray => ({ ...array, data: array.data.slice() }) as NdArray;

const statisticsOptions = (s: Settings) => ({ ...s, trackRunningStats: s.track_running_stats });

const normOptions = (s: Settings) => ({ eps: s.eps, affine: s.elementwise_affine ?? s.affine, bias: s.bias });

const batchNorm = norm((s) => new BatchNorm(s.num_features, statisticsOptions(s)));

const adaptiveInstanceNorm: Adapter = (reference) => {
  const run = compile((content: Tensor, style: Tensor) => {
    const { mean, std } = channelStatistics(content);
    return { out: adaIN(content, style), 'out.mean': mean, 'out.std': std };
  });
  return run(reference.input('content'), reference.input('style'));
};

export const adapters: Readonly<Record<string, Adapter>> = {
  BatchNorm1d: batchNorm,
  BatchNorm2d: batchNorm,
  GroupNorm: norm((s) => new GroupNorm(s.num_groups, s.num_channels, normOptions(s))),
  InstanceNorm2d: norm((s) => new InstanceNorm2d(s.num_features, statisticsOptions(s))),
  LayerNorm: norm((s) => new LayerNorm(s.normalized_shape, normOptions(s))),
  LlamaRMSNorm: norm((s) => new RMSNorm(s.dim, { eps: s.eps })),
  adaptive_instance_normalization: adaptiveInstanceNorm,
};
