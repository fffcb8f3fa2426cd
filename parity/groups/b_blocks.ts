import { type NdArray, ndarray } from '../../src/array/index.js';
import * as nn from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Inputs = Readonly<Record<string, Tensor>>;
/** One output, or several by their names behind `out.`. */
type Result = Tensor | Readonly<Record<string, Tensor>>;

interface Block {
  readonly module: nn.Module;
  readonly forward: (inputs: Inputs) => Result;
}
type Build<Config> = (config: Config, rng: Generator, reference: ReferenceCase) => Block;

/** diffusers' config as ours: keys in camelCase; a null means "absent", but for `keepNull`. */
export function configOf<Config>(config: Readonly<Record<string, unknown>>, keepNull?: string): Config {
  const entries = Object.entries(config)
    .filter(([key, value]) => !key.startsWith('_') && (value !== null || key === keepNull))
    .map(([key, value]) => [key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value]);
  return Object.fromEntries(entries) as Config;
}

/** Runs the block on the case's inputs with its weights. */
const block =
  <Config>(build: Build<Config>, keepNull?: string): Adapter =>
  async (reference) => {
    const { module, forward } = build(configOf(reference.config, keepNull), new Generator(0), reference);
    module.loadStateDict(withoutAliases(reference.weights));
    const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
    const run = compile((x: Inputs) => named(forward(x)));
    const outputs = await run(inputs);
    await run.release();
    return outputs;
  };

function named(result: Result): Record<string, Tensor> {
  if ('op' in result) return { out: result as Tensor };
  return Object.fromEntries(Object.entries(result).map(([name, x]) => [`out.${name}`, x]));
}

/** diffusers' resamplers register their convolution under an old name, too. */
const withoutAliases = (weights: ReadonlyMap<string, NdArray>): Map<string, NdArray> =>
  new Map([...weights].map(([name, value]) => [name.replace(/^Conv2d_0\./, 'conv.'), value]));

type Forward = nn.Module & { forward(...inputs: Tensor[]): Tensor };

/** A module whose forward takes inputs of these names, in this order; absent ones are left out. */
const plain =
  <Config>(create: (config: Config, rng: Generator) => Forward, ...names: string[]): Build<Config> =>
  (config, rng) => {
    const module = create(config, rng);
    return { module, forward: (x) => module.forward(...names.map((name) => x[name]).filter(Boolean)) };
  };

/** The same for a class whose constructor takes the config. */
const configured = <Config>(
  Class: new (config: Config, rng: Generator) => Forward,
  ...names: string[]
): Build<Config> => plain((config, rng) => new Class(config, rng), ...names);

const conditionOf = (x: Inputs): nn.BlockCondition => ({
  timestep: x.timestep,
  classLabels: x.class_labels,
  emb: x.emb,
});

const modulation = ({ x, gateMsa, shiftMlp, scaleMlp, gateMlp }: nn.Modulation & { x: Tensor }) => ({
  x,
  gate_msa: gateMsa,
  shift_mlp: shiftMlp,
  scale_mlp: scaleMlp,
  gate_mlp: gateMlp,
});

const adaLayerNormZero: Build<nn.AdaLayerNormZeroConfig> = (config, rng) => {
  const module = new nn.AdaLayerNormZero(config, rng);
  return { module, forward: (x) => modulation(module.forward(x.x, conditionOf(x))) };
};

const adaLayerNormZeroX: Build<nn.SD35AdaLayerNormZeroXConfig> = (config, rng) => {
  const module = new nn.SD35AdaLayerNormZeroX(config, rng);
  return {
    module,
    forward: (x) => {
      const y = module.forward(x.hidden_states, x.emb);
      return { ...modulation(y), x2: y.x2, gate_msa2: y.gateMsa2 };
    },
  };
};

const adaLayerNormSingle: Build<nn.AdaLayerNormSingleConfig> = (config, rng) => {
  const module = new nn.AdaLayerNormSingle(config, rng);
  return {
    module,
    forward: (x) => {
      const size = x.resolution && { resolution: x.resolution, aspectRatio: x.aspect_ratio };
      const { modulation, embedding } = module.forward(x.timestep, size);
      return { modulation, embedded_timestep: embedding };
    },
  };
};

const labelEmbedding: Build<{ numClasses: number; hiddenSize: number; dropoutProb: number }> = (
  { numClasses, hiddenSize, dropoutProb },
  rng,
) => {
  const module = new nn.LabelEmbedding(numClasses, hiddenSize, dropoutProb, rng);
  return { module, forward: (x) => module.forward(x.labels, x.force_drop_ids?.equal(1)) };
};

const attention: Build<nn.AttentionConfig> = (config, rng) => {
  const module = new nn.Attention(config, rng);
  return {
    module,
    forward: (x) => {
      const { hidden_states: tokens, encoder_hidden_states: encoderHiddenStates, attention_mask: attentionMask } = x;
      if (!module.addQProj || !encoderHiddenStates)
        return module.forward(tokens, { encoderHiddenStates, attentionMask, temb: x.temb });
      const { image, text } = module.forwardJoint(tokens, encoderHiddenStates);
      return { hidden_states: image, ...(text && { encoder_hidden_states: text }) };
    },
  };
};

const blockInputs = (x: Inputs): nn.TransformerBlockInputs => ({
  encoderHiddenStates: x.encoder_hidden_states,
  attentionMask: x.attention_mask,
  encoderAttentionMask: x.encoder_attention_mask,
  timestep: x.timestep,
  classLabels: x.class_labels,
  pooledTextEmb: x.pooled_text_emb,
});

const transformerBlock: Build<nn.TransformerBlockConfig> = (config, rng) => {
  const module = new nn.BasicTransformerBlock(config, rng);
  return { module, forward: (x) => module.forward(x.hidden_states, blockInputs(x)) };
};

const transformer2d: Build<nn.Transformer2DConfig> = (config, rng) => {
  const module = new nn.Transformer2DModel(config, rng);
  // Here a mask of two axes says which tokens to keep, whatever its dtype.
  const keep = (mask?: Tensor) => (mask?.rank === 2 ? mask.cast('bool') : mask);
  const masks = (x: Inputs) => ({
    attentionMask: keep(x.attention_mask),
    encoderAttentionMask: keep(x.encoder_attention_mask),
  });
  return { module, forward: (x) => ({ sample: module.forward(x.hidden_states, { ...blockInputs(x), ...masks(x) }) }) };
};

const jointTransformerBlock: Build<nn.JointTransformerBlockConfig> = (config, rng) => {
  const module = new nn.JointTransformerBlock(config, rng);
  return {
    module,
    forward: (x) => {
      const { image, text } = module.forward(x.hidden_states, x.encoder_hidden_states, x.temb);
      return { hidden_states: image, ...(text && { encoder_hidden_states: text }) };
    },
  };
};

const upsample: Build<nn.Upsample2DConfig> = (config, rng, { description }) => {
  const module = new nn.Upsample2D(config, rng);
  const { output_size: size } = (description.scalar_inputs ?? {}) as { output_size?: [number, number] };
  return { module, forward: (x) => module.forward(x.hidden_states, size ?? undefined) };
};

interface Projection {
  readonly dimIn: number;
  readonly dimOut: number;
  readonly bias?: boolean;
  readonly approximate?: string;
  readonly activation?: nn.ActivationName;
}
const gatedUnit = (activation: nn.ActivationName) =>
  plain(
    ({ dimIn, dimOut, bias }: Projection, rng) => new nn.GatedLinearUnit(dimIn, dimOut, activation, { bias }, rng),
    'hidden_states',
  );
const projected = (activationOf: (config: Projection) => nn.ActivationName, ...names: string[]) =>
  plain(
    (config: Projection, rng) => {
      const { dimIn, dimOut, bias } = config;
      return new nn.ProjectedActivation(dimIn, dimOut, activationOf(config), { bias }, rng);
    },
    ...names,
  );

/** PatchEmbed also shows the positions of its configured size, which are no part of its state. */
const patchEmbed: Adapter = async (reference) => {
  const { height, width, patchSize, embedDim, interpolationScale } = configOf<nn.PatchEmbedConfig>(reference.config);
  const embed = block(configured(nn.PatchEmbed, 'latent'), 'pos_embed_type');
  const side = Math.floor(Math.sqrt(Math.floor(height / patchSize) * Math.floor(width / patchSize)));
  const grid = nn.sinCos2d(embedDim, [side, side], { baseSize: Math.floor(height / patchSize), interpolationScale });
  return {
    ...(await embed(reference)),
    'nonpersistent_buffer.pos_embed': ndarray(grid.data, [1, ...grid.shape]),
  };
};

const timestepEmbedding: Adapter = async (reference): Promise<Outputs> => {
  const { embedding_dim: dim, ...args } = reference.description.args as { embedding_dim: number };
  const run = compile((timesteps: Tensor) => ({
    out: nn.timestepEmbedding(timesteps, dim, configOf<nn.TimestepOptions>(args)),
  }));
  return run(reference.given('timesteps'));
};

const sinCos2d: Adapter = ({ description }) => {
  const args = description.args as {
    embed_dim: number;
    grid_size: number | [number, number];
    cls_token?: boolean;
    extra_tokens?: number;
    interpolation_scale?: number;
    base_size?: number;
  };
  const grid = typeof args.grid_size === 'number' ? ([args.grid_size, args.grid_size] as const) : args.grid_size;
  const extraTokens = args.cls_token ? args.extra_tokens : 0;
  const { base_size: baseSize, interpolation_scale: interpolationScale } = args;
  return { out: nn.sinCos2d(args.embed_dim, grid, { baseSize, interpolationScale, extraTokens }) };
};

type PixArtText = Omit<nn.TextProjectionConfig, 'actFn'> & { readonly actFn?: string };

export const adapters: Readonly<Record<string, Adapter>> = {
  AdaGroupNorm: block(configured(nn.AdaGroupNorm, 'x', 'emb')),
  AdaLayerNorm: block(configured(nn.AdaLayerNorm, 'x', 'timestep', 'temb')),
  AdaLayerNormContinuous: block(configured(nn.AdaLayerNormContinuous, 'x', 'conditioning_embedding')),
  AdaLayerNormSingle: block(adaLayerNormSingle),
  AdaLayerNormZero: block(adaLayerNormZero),
  ApproximateGELU: block(projected(() => 'quick_gelu', 'x', 'hidden_states')),
  Attention: block(attention),
  BasicTransformerBlock: block(transformerBlock),
  CombinedTimestepLabelEmbeddings: block(
    plain(
      (c: { numClasses: number; embeddingDim: number; classDropoutProb?: number }, rng) =>
        new nn.CombinedTimestepLabelEmbeddings(c.numClasses, c.embeddingDim, c.classDropoutProb ?? 0.1, rng),
      'timestep',
      'class_labels',
    ),
  ),
  CombinedTimestepTextProjEmbeddings: block(
    plain(
      (c: { embeddingDim: number; pooledProjectionDim: number }, rng) =>
        new nn.CombinedTimestepTextProjEmbeddings(c.embeddingDim, c.pooledProjectionDim, rng),
      'timestep',
      'pooled_projection',
    ),
  ),
  ControlNetConditioningEmbedding: block(configured(nn.ControlNetConditioningEmbedding, 'conditioning')),
  Downsample2D: block(configured(nn.Downsample2D, 'hidden_states')),
  FeedForward: block(configured(nn.FeedForward, 'hidden_states')),
  GEGLU: block(gatedUnit('gelu')),
  GELU: block(projected(({ approximate }) => (approximate === 'tanh' ? 'gelu-approximate' : 'gelu'), 'hidden_states')),
  GaussianFourierProjection: block(configured(nn.GaussianFourierProjection, 'x')),
  JointTransformerBlock: block(jointTransformerBlock),
  LabelEmbedding: block(labelEmbedding),
  LinearActivation: block(projected(({ activation = 'silu' }) => activation, 'hidden_states')),
  PatchEmbed: patchEmbed,
  PixArtAlphaTextProjection: block(
    plain(({ actFn = 'gelu_tanh', ...sizes }: PixArtText, rng) => {
      const activation = actFn === 'gelu_tanh' ? 'gelu-approximate' : 'silu';
      return new nn.TextProjection({ ...sizes, actFn: activation }, rng);
    }, 'caption'),
  ),
  RMSNorm: block(
    plain(
      (c: { dim: number; eps: number; elementwiseAffine?: boolean; bias?: boolean }) =>
        new nn.RMSNorm(c.dim, { eps: c.eps, affine: c.elementwiseAffine, bias: c.bias }),
      'hidden_states',
    ),
  ),
  ResnetBlock2D: block(configured(nn.ResnetBlock2D, 'input_tensor', 'temb'), 'temb_channels'),
  SD35AdaLayerNormZeroX: block(adaLayerNormZeroX),
  SpatialNorm: block(
    plain(
      (c: { fChannels: number; zqChannels: number }, rng) => new nn.SpatialNorm(c.fChannels, c.zqChannels, rng),
      'f',
      'zq',
    ),
  ),
  SwiGLU: block(gatedUnit('silu')),
  TimestepEmbedding: block(configured(nn.TimestepEmbedding, 'sample', 'condition')),
  Timesteps: block(
    plain(
      ({ numChannels, ...options }: nn.TimestepOptions & { numChannels: number }) =>
        new nn.Timesteps(numChannels, options),
      'timesteps',
    ),
  ),
  Transformer2DModel: block(transformer2d),
  Upsample2D: block(upsample),
  get_2d_sincos_pos_embed: sinCos2d,
  get_timestep_embedding: timestepEmbedding,
};
