import { type NdArray, ndarray } from '../../src/array/index.js';
import {
  type AutoregressiveModel,
  bernoulliLogLikelihood,
  FullyVisibleBeliefNetwork,
  GatedPixelCNN,
  MADE,
  madeMasks,
  NADE,
  PixelCNN,
} from '../../src/models/index.js';
import { sampleAutoregressive } from '../../src/pipelines/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Shape = readonly [number, number, number];

/** A model of ours with what the source calls its weights. */
interface Adapted {
  readonly model: AutoregressiveModel;
  /** Gradients by the source's weights, under its names. */
  slopes(loss: Tensor): Map<string, Tensor>;
  /** Its answer is a probability. */
  readonly probabilities?: boolean;
}

const slopesBy =
  (weights: () => Map<string, Tensor>) =>
  (loss: Tensor): Map<string, Tensor> => {
    const by = weights();
    const slopes = gradients(loss, [...by.values()]);
    return new Map([...by.keys()].map((name, i) => [name, slopes[i]]));
  };

/** Ours answers to the source's names through a table of name parts. */
function renamed(model: AutoregressiveModel, reference: ReferenceCase, ours: (name: string) => string): Adapted {
  const variables = model.namedVariables();
  model.loadStateDict(new Map([...reference.weights].map(([name, array]) => [ours(name), array])));
  return {
    model,
    slopes: slopesBy(() => new Map([...reference.weights.keys()].map((name) => [name, variables.get(ours(name))!]))),
  };
}

function fvbn(reference: ReferenceCase, shape: Shape): Adapted {
  const model = new FullyVisibleBeliefNetwork(shape, new Generator(0));
  const d = model.order.length;
  const weight = new Float32Array(d * d);
  const bias = new Float32Array(d);
  for (let i = 0; i < d; i++) {
    bias[i] = Number(reference.weights.get(`_net.${i}.bias`)!.data[0]);
    const row = reference.weights.get(`_net.${i}.weight`)!.data as Float32Array;
    if (i > 0) weight.set(row, i * d);
  }
  model.loadStateDict(
    new Map<string, NdArray>([
      ['weight', ndarray(weight, [d, d])],
      ['bias', ndarray(bias)],
    ]),
  );
  const slopes = (loss: Tensor) => {
    const [ofWeight, ofBias] = gradients(loss, [model.weight, model.bias]);
    const row = (i: number): [string, Tensor][] => [
      // The first layer sees a zero: its weight has no say.
      [`_net.${i}.weight`, ofWeight.slice(0, i, i + 1).slice(1, 0, Math.max(1, i))],
      [`_net.${i}.bias`, ofBias.slice(0, i, i + 1)],
    ];
    return new Map(Array.from({ length: d }, (_, i) => row(i)).flat());
  };
  return { model, slopes };
}

const made = (reference: ReferenceCase, shape: Shape): Adapted => {
  const { hidden_dims: hiddenDims } = reference.config as { hidden_dims: number[] };
  const model = new MADE(shape, { hiddenDims }, new Generator(0));
  const layerOf = (name: string) => Number(/\d+/.exec(name)![0]) / 2;
  const state = new Map(model.stateDict());
  for (const [name, array] of reference.weights)
    if (!name.endsWith('mask')) state.set(`layers.${layerOf(name)}.${name.split('.').at(-1)}`, array);
  model.loadStateDict(state);
  // The source writes the masked weights back, so that its gradients are those of the masked ones.
  const weightOf = (name: string) => {
    const layer = model.layers[layerOf(name)];
    return name.endsWith('bias') ? layer.bias! : layer.masked;
  };
  const names = [...reference.weights.keys()].filter((name) => !name.endsWith('mask'));
  return { model, slopes: slopesBy(() => new Map(names.map((name) => [name, weightOf(name)]))) };
};

const underscored: readonly (readonly [RegExp, string])[] = [
  [/(^|\.)_/g, '$1'],
  [/head\.1\./, 'head.conv_1.'],
  [/head\.3\./, 'head.conv_2.'],
  [/1xN/, '1x_n'],
  [/Nx1/, '_nx1'],
];
const plain = (name: string): string => underscored.reduce((s, [pattern, to]) => s.replace(pattern, to), name);

const kinds: Readonly<Record<string, (reference: ReferenceCase, shape: Shape) => Adapted>> = {
  FullyVisibleBeliefNetwork: fvbn,
  MADE: made,
  NADE(reference, shape) {
    const { hidden_dim: hidden } = reference.config as { hidden_dim: number };
    const names: Readonly<Record<string, string>> = { _in_W: 'in_w', _in_b: 'in_b', _h_W: 'h_w', _h_b: 'h_b' };
    return {
      ...renamed(new NADE(shape, hidden, new Generator(0)), reference, (name) => names[name]),
      probabilities: true,
    };
  },
  GatedPixelCNN(reference, shape) {
    const { n_gated, gated_channels, head_channels } = reference.config as Record<string, number>;
    const options = { gatedLayers: n_gated, gatedChannels: gated_channels, headChannels: head_channels };
    return renamed(new GatedPixelCNN(shape, options, new Generator(0)), reference, plain);
  },
  PixelCNN(reference, shape) {
    const { n_residual, residual_channels, head_channels } = reference.config as Record<string, number>;
    const options = { blocks: n_residual, channels: 2 * residual_channels, headChannels: head_channels };
    const parts = ['', 'conv_in', '', 'masked', '', 'conv_out'];
    const ours = (name: string) =>
      plain(name).replace(
        /causal_layers\.(\d+)\.net\.(\d+)/,
        (_, i: string, k: string) => `blocks.${i}.${parts[Number(k)]}`,
      );
    return renamed(new PixelCNN(shape, options, new Generator(0)), reference, ours);
  },
};

const adapter =
  (kind: string): Adapter =>
  async (reference) => {
    const x = reference.input('x');
    const { model, slopes, probabilities } = kinds[kind](reference, x.shape.slice(1) as unknown as Shape);
    const run = compile((x: Tensor, weight: Tensor): Record<string, Tensor> => {
      const logits = model.forward(x);
      const answer = probabilities ? logits.sigmoid() : logits;
      const loss = answer.mul(weight).sum();
      return {
        [probabilities ? 'out.probs' : 'out.logits']: answer,
        'out.log_likelihood': bernoulliLogLikelihood(logits, x),
        'out.loss': loss,
        ...Object.fromEntries([...slopes(loss)].map(([name, slope]) => [`grad.${name}`, slope])),
      };
    });
    const outputs: Outputs = await run(x, reference.given('loss_weight.0'));
    const given = reference.optionalInput('conditioned_on') as NdArray<'float32'> | undefined;
    if (!given || !reference.tensors.has('out.greedy_completion')) return outputs;
    return { ...outputs, 'out.greedy_completion': await sampleAutoregressive({ model, given, greedy: true }) };
  };

function masks(reference: ReferenceCase): Outputs {
  const { input_dim: d, hidden_dims: hidden } = reference.config as { input_dim: number; hidden_dims: number[] };
  const { masks, ordering } = madeMasks(d, hidden, 0);
  const dims = [d, ...hidden, d];
  return {
    ...Object.fromEntries(
      masks.map((mask, i) => [
        `out.mask${i}`,
        ndarray(mask as Uint8Array<ArrayBuffer>, [dims[i + 1], dims[i]], 'uint8'),
      ]),
    ),
    'out.ordering': ndarray([...ordering], [d], 'int64'),
  };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  ...Object.fromEntries(Object.keys(kinds).map((kind) => [kind, adapter(kind)])),
  'MADE._sample_masks': masks,
};
