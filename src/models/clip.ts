import { z } from 'zod';
import { camelCase, parseFields, snakeCase } from '../io/index.js';
import { type ActivationName, activate, activationName, isTraining, LayerNorm, Linear, Module } from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { scaledDotProductAttention, type Tensor } from '../tensor/index.js';
import { positive } from './config.js';

/** What the text and the image tower of CLIP have in common in transformers' configs. */
export const clipTowerFields = {
  projectionDim: positive.default(512),
  numHiddenLayers: positive.default(12),
  hiddenAct: z.string().default('quick_gelu'),
  layerNormEps: z.number().positive().default(1e-5),
  attentionDropout: z.number().min(0).max(1).default(0),
  initializerRange: z.number().nonnegative().default(0.02),
  initializerFactor: z.number().nonnegative().default(1),
};

export interface ClipTower {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
  readonly attentionDropout: number;
  readonly initializerFactor: number;
}

/**
 * Reads the content of a transformers config.json: the schema's fields, in snake_case. transformers writes settings
 * of its own beside them (`torch_dtype`, `output_attentions` ...), which say nothing about the network.
 * @throws TypeError that names each wrong field.
 */
export function fromTransformersJson<S extends z.ZodObject>(className: string, schema: S, json: unknown): z.output<S> {
  if (typeof json !== 'object' || json === null) throw new TypeError(`${className}: config.json must hold an object`);
  const fields = Object.entries(json).map(([name, value]) => [camelCase(name), value]);
  return parseFields(className, schema, Object.fromEntries(fields.filter(([name]) => name in schema.shape)));
}

/** The content of config.json that transformers' from_pretrained reads. */
export const toTransformersJson = (className: string, modelType: string, config: object): Record<string, unknown> => ({
  architectures: [className],
  model_type: modelType,
  transformers_version: '4.45.0',
  ...Object.fromEntries(Object.entries(config).map(([name, value]) => [snakeCase(name), value])),
});

/** A layer whose weights start from normal numbers of this deviation and whose bias, if any, starts at 0. */
export function normalLinear(from: number, to: number, options: { std: number; bias?: boolean }, rng: Generator) {
  const layer = new Linear(from, to, { bias: options.bias }, rng);
  layer.weight.set(normalWeights(rng, layer.weight.shape, { std: options.std }));
  layer.bias?.set({ ...layer.bias.value, data: new Float32Array(to) } as typeof layer.bias.value);
  return layer;
}

class ClipAttention extends Module {
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly qProj: Linear;
  readonly outProj: Linear;

  constructor(
    private readonly tower: ClipTower,
    rng: Generator,
  ) {
    super();
    const { hiddenSize: width, numHiddenLayers, initializerFactor } = tower;
    const std = initializerFactor / Math.sqrt(width);
    const projection = (scale: number) => normalLinear(width, width, { std: std * scale }, rng);
    this.kProj = projection((2 * numHiddenLayers) ** -0.5);
    this.vProj = projection((2 * numHiddenLayers) ** -0.5);
    this.qProj = projection((2 * numHiddenLayers) ** -0.5);
    this.outProj = projection(1);
  }

  forward(x: Tensor, mask?: Tensor): Tensor {
    const { hiddenSize, numAttentionHeads: heads, attentionDropout } = this.tower;
    if (attentionDropout && isTraining())
      throw new Error('CLIP: cannot train with dropout of attention; set attentionDropout to 0');
    const [n, length] = x.shape;
    const [q, k, v] = [this.qProj, this.kProj, this.vProj].map((layer) =>
      layer.forward(x).reshape([n, length, heads, -1]).swapAxes(1, 2),
    );
    const attended = scaledDotProductAttention(q, k, v, { mask, scale: 1 / Math.sqrt(hiddenSize / heads) });
    return this.outProj.forward(attended.swapAxes(1, 2).reshape([n, length, hiddenSize]));
  }
}

class ClipMlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;
  private readonly activation: ActivationName;

  constructor(tower: ClipTower, rng: Generator) {
    super();
    const { hiddenSize, intermediateSize, numHiddenLayers, initializerFactor: factor } = tower;
    this.activation = activationName(tower.hiddenAct);
    this.fc1 = normalLinear(hiddenSize, intermediateSize, { std: factor * (2 * hiddenSize) ** -0.5 }, rng);
    const std = factor * (2 * hiddenSize * numHiddenLayers) ** -0.5;
    this.fc2 = normalLinear(intermediateSize, hiddenSize, { std }, rng);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(activate(this.activation, this.fc1.forward(x)));
  }
}

class ClipEncoderLayer extends Module {
  readonly selfAttn: ClipAttention;
  readonly layerNorm1: LayerNorm;
  readonly mlp: ClipMlp;
  readonly layerNorm2: LayerNorm;

  constructor(tower: ClipTower, rng: Generator) {
    super();
    const { hiddenSize, layerNormEps: eps } = tower;
    this.selfAttn = new ClipAttention(tower, rng);
    this.layerNorm1 = new LayerNorm(hiddenSize, { eps });
    this.mlp = new ClipMlp(tower, rng);
    this.layerNorm2 = new LayerNorm(hiddenSize, { eps });
  }

  forward(x: Tensor, mask?: Tensor): Tensor {
    const y = x.add(this.selfAttn.forward(this.layerNorm1.forward(x), mask));
    return y.add(this.mlp.forward(this.layerNorm2.forward(y)));
  }
}

/** The transformer of either tower: normalises before each sub-layer. */
export class ClipEncoder extends Module {
  readonly layers: readonly ClipEncoderLayer[];

  /** @throws RangeError for an unknown activation, or heads that do not divide the width. */
  constructor(tower: ClipTower, rng: Generator) {
    super();
    const { hiddenSize, numAttentionHeads } = tower;
    if (hiddenSize % numAttentionHeads)
      throw new RangeError(`CLIP: hiddenSize ${hiddenSize} is no multiple of numAttentionHeads ${numAttentionHeads}`);
    this.layers = Array.from({ length: tower.numHiddenLayers }, () => new ClipEncoderLayer(tower, rng));
  }

  /**
   * @param x tokens [N, L, hiddenSize]. @param mask float, added to the scores: [1 or N, 1, L, L].
   * @returns the input and what each layer made of it.
   */
  forward(x: Tensor, mask?: Tensor): Tensor[] {
    const states = [x];
    for (const layer of this.layers) states.push(layer.forward(states.at(-1)!, mask));
    return states;
  }
}
