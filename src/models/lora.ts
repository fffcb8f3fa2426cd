import { type NdArray, ndarray, toFloat32, zeros } from '../array/index.js';
import { Conv2d, Linear, type LowRank, type LowRanks, Module, parameter } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { type Tensor, type Variable, variable } from '../tensor/index.js';
import { ldmUnetName } from './ldmNames.js';
import { SD3Transformer2D } from './sd3Transformer2d.js';
import { UNet2DCondition } from './unet2dCondition.js';

/** The part of a pipeline that a layer of a LoRA file belongs to, by its folder's name. */
export type LoraTarget = 'unet' | 'transformer' | 'text_encoder' | 'text_encoder_2';

/** One layer of a LoRA file. */
export interface LoraLayer {
  readonly target: LoraTarget;
  /** The layer's checkpoint name; in kohya's files its dots are underscores. */
  readonly path: string;
  readonly down: NdArray;
  readonly up: NdArray;
  /** Default: the rank, for a scale of 1. */
  readonly alpha?: number;
}

/** How entries end: PEFT's, kohya's, diffusers' of today for either kind of model, and diffusers' of the beginnings. */
const endings: readonly (readonly [ending: RegExp, half: 'down' | 'up' | 'alpha'])[] = [
  [/(\.lora_A(\.default)?|[._]lora[._](linear_layer\.)?down)\.weight$/, 'down'],
  [/(\.lora_B(\.default)?|[._]lora[._](linear_layer\.)?up)\.weight$/, 'up'],
  [/\.alpha$/, 'alpha'],
];

/** A layer as the models here call it: diffusers' first files named attention's processors, and `to_q` in text encoders. */
const layerName = (path: string, target: LoraTarget): string => {
  const plain = path.replace('.processor.', '.');
  return target.startsWith('text_encoder')
    ? plain.replace(/\.to_(q|k|v|out)$/, '.$1_proj')
    : plain.replace(/\.to_out$/, '.to_out.0');
};

/** How files call the targets: kohya's prefixes, then diffusers'. */
const prefixes: readonly (readonly [prefix: string, target: LoraTarget])[] = [
  ['lora_unet_', 'unet'],
  ['lora_te1_', 'text_encoder'],
  ['lora_te2_', 'text_encoder_2'],
  ['lora_te_', 'text_encoder'],
  ['unet.', 'unet'],
  ['transformer.', 'transformer'],
  ['text_encoder_2.', 'text_encoder_2'],
  ['text_encoder.', 'text_encoder'],
  ['base_model.model.', 'unet'],
];

/**
 * The layers of a LoRA file in the naming of diffusers, PEFT or kohya.
 * @throws Error that names the entries that are none: other methods (LoHa, LoKr, DoRA), or a half without the other.
 */
export function loraLayers(tensors: ReadonlyMap<string, NdArray>): LoraLayer[] {
  const layers = new Map<string, { target: LoraTarget; path: string; down?: NdArray; up?: NdArray; alpha?: NdArray }>();
  const unknown: string[] = [];
  for (const [name, array] of tensors) {
    const place = prefixes.find(([prefix]) => name.startsWith(prefix));
    const [found, half] =
      endings.map(([ending, half]) => [ending.exec(name), half] as const).find(([match]) => match) ?? [];
    if (!found || !half || !place) {
      unknown.push(name);
      continue;
    }
    const [prefix, target] = place;
    const path = layerName(name.slice(prefix.length, found.index), target);
    const key = `${target} ${path}`;
    const entry = layers.get(key) ?? { target, path };
    entry[half] = array;
    layers.set(key, entry);
  }
  if (unknown.length > 0)
    throw new Error(
      `LoRA: ${listed(unknown)}: no low-rank factor of a layer (lora_A and lora_B, or lora_down and lora_up)`,
    );
  return [...layers.values()].map(({ target, path, down, up, alpha }) => {
    if (!down || !up) throw new Error(`LoRA: ${path} has no ${down ? 'up' : 'down'} factor`);
    if (down.shape[0] !== up.shape[1])
      throw new RangeError(`LoRA: ${path} has factors [${down.shape}] and [${up.shape}] of different rank`);
    return { target, path, down, up, alpha: alpha && Number(toFloat32(alpha).data[0]) };
  });
}

/**
 * What a LoRA changes in a model.
 * @param layers of that model; @param weight 1 is as it was trained, 0 none of it.
 * @throws Error that names the layers which the model lacks or has in other sizes: it was made for another architecture.
 */
export function loraFor(model: Module, layers: readonly LoraLayer[], weight: number | Tensor = 1): LowRanks {
  const modules = [...model.namedModules()].filter(([, layer]) => layer instanceof Linear || layer instanceof Conv2d);
  const byPath = new Map(modules.flatMap(([path, layer]) => namesOf(model, path).map((key) => [key, layer])));
  const misfits: string[] = [];
  const changes = new Map<Module, LowRank[]>();
  for (const { path, down, up, alpha } of layers) {
    const layer = byPath.get(path) as Linear | Conv2d | undefined;
    const factors = layer && fitted(layer, down, up);
    if (!layer || !factors) {
      misfits.push(
        layer ? `${path} (${up.shape[0]} from ${down.shape[1]}, the model has [${layer.weight.shape}])` : path,
      );
      continue;
    }
    const rank = down.shape[0];
    const ratio = (alpha ?? rank) / rank;
    const scale = typeof weight === 'number' ? ratio * weight : weight.mul(ratio);
    const [first, second] = factors.map((array) => variable(array, { trainable: false }));
    changes.set(layer, [...(changes.get(layer) ?? []), { down: first, up: second, scale }]);
  }
  if (misfits.length > 0)
    throw new Error(
      `LoRA: made for another architecture: ${misfits.length} of its ${layers.length} layers do not fit this ${model.constructor.name}: ${listed(misfits)}`,
    );
  return changes;
}

/** CompVis' name of one of the UNet's layers or weights. */
export function ldmNameOf({ config }: UNet2DCondition, name: string): string | undefined {
  const { layersPerBlock: layers, upBlockTypes } = config;
  const attends = upBlockTypes.map((type) => type.includes('CrossAttn'));
  return ldmUnetName(name, typeof layers === 'number' ? layers : layers[0], attends);
}

/** What files call a layer: its path, with underscores, and in CompVis' names. */
function namesOf(model: Module, path: string): string[] {
  const theirs =
    model instanceof UNet2DCondition ? ldmNameOf(model, `${path}.weight`)?.slice(0, -'.weight'.length) : undefined;
  return [path, path.replaceAll('.', '_'), ...(theirs ? [theirs.replaceAll('.', '_')] : [])];
}

/** The factors in the layer's own number of axes, if they fit it: files keep 1x1 convolutions and linear layers in either. */
function fitted(layer: Linear | Conv2d, down: NdArray, up: NdArray): [NdArray, NdArray] | undefined {
  const { shape } = layer.weight;
  const [rank] = down.shape;
  const inner = [rank, ...shape.slice(1)];
  const outer = [shape[0], rank, ...shape.slice(2).map(() => 1)];
  if (size(inner) !== size(down.shape) || size(outer) !== size(up.shape) || up.shape[0] !== shape[0]) return undefined;
  const float = (array: NdArray, to: readonly number[]) => ndarray(toFloat32(array).data, to);
  return [float(down, inner), float(up, outer)];
}

const size = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

const listed = (names: readonly string[]): string =>
  names.length > 6 ? `${names.slice(0, 6).join(', ')} and ${names.length - 6} more` : names.join(', ');

/** Which layers a LoRA changes by default: the projections of all attention, as diffusers' training scripts choose. */
export const attentionProjections = /(^|\.)(to_q|to_k|to_v|to_out\.0|q_proj|k_proj|v_proj|out_proj)$/;

/** Those of SD3: of the attention that text and picture share, as diffusers chooses them. */
const jointProjections = /\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)$/;

export interface LoraOptions {
  /** Default 4. */
  readonly rank?: number;
  /** The change is scaled by alpha / rank; default: rank. */
  readonly alpha?: number;
  /** Checkpoint names of the layers to change; default: the projections of attention ({@link attentionProjections}), in SD3 of the one that text and picture share. */
  readonly targets?: RegExp;
}

const usualTargets = (model: Module): RegExp =>
  model instanceof SD3Transformer2D ? jointProjections : attentionProjections;

class Factors extends Module {
  readonly down: Variable;
  readonly up: Variable;

  /** down is normal with deviation 1 / rank, up zero: at first nothing is changed. */
  constructor({ weight: { shape } }: Linear | Conv2d, rank: number, rng: Generator) {
    super();
    const { data } = rng.randn([rank, ...shape.slice(1)]);
    this.down = parameter(
      ndarray(
        data.map((x) => x / rank),
        [rank, ...shape.slice(1)],
      ),
    );
    this.up = parameter(zeros([shape[0], rank, ...shape.slice(2).map(() => 1)]));
  }
}

/** A LoRA to train beside a frozen model. */
export class Lora extends Module {
  readonly layers: readonly Factors[];
  readonly rank: number;
  readonly alpha: number;
  readonly #targets: readonly (readonly [path: string, layer: Module])[];

  /** @throws RangeError when no layer of the model is called so, or the rank is none. */
  constructor(model: Module, options: LoraOptions, rng: Generator) {
    super();
    const { rank = 4, alpha = rank, targets = usualTargets(model) } = options;
    if (!Number.isInteger(rank) || rank < 1) throw new RangeError(`LoRA: rank ${rank}, expected a whole number from 1`);
    this.rank = rank;
    this.alpha = alpha;
    const isLayer = (layer: Module): layer is Linear | Conv2d => layer instanceof Linear || layer instanceof Conv2d;
    const all = [...model.namedModules()].filter(([, layer]) => isLayer(layer));
    this.#targets = all.filter(([path]) => targets.test(path));
    if (this.#targets.length === 0)
      throw new RangeError(
        `LoRA: no layer of ${model.constructor.name} matches ${targets}; it has ${listed(all.map(([path]) => path))}`,
      );
    this.layers = this.#targets.map(([, layer]) => new Factors(layer as Linear | Conv2d, rank, rng));
  }

  /** For {@link withLowRank}. */
  changes(): LowRanks {
    const scale = this.alpha / this.rank;
    return new Map(this.#targets.map(([, layer], i) => [layer, [{ ...pick(this.layers[i]), scale }]]));
  }

  /**
   * Under the names of diffusers' `pytorch_lora_weights.safetensors`, as its training scripts write them for a UNet and for
   * a transformer. The scale is in `up`: diffusers refuses files with `alpha`, and takes the rank for it.
   * @param target whose layers these are.
   */
  async toTensors(target: 'unet' | 'transformer'): Promise<Map<string, NdArray>> {
    const [a, b] = target === 'unet' ? ['lora.down', 'lora.up'] : ['lora_A', 'lora_B'];
    const tensors = new Map<string, NdArray>();
    for (const [i, [path]] of this.#targets.entries()) {
      const { down, up } = this.layers[i];
      tensors.set(`${target}.${path}.${a}.weight`, await down.read());
      tensors.set(`${target}.${path}.${b}.weight`, times(await up.read(), this.alpha / this.rank));
    }
    return tensors;
  }
}

const pick = ({ down, up }: Factors) => ({ down, up });
const times = ({ data, shape }: NdArray, scale: number): NdArray =>
  ndarray(
    Float32Array.from(data as Float32Array, (w) => w * scale),
    shape,
  );
