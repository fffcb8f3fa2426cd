export interface ConfigJson {
  readonly [field: string]: unknown;
  readonly _class_name?: unknown;
  readonly architectures?: readonly unknown[];
}

/** diffusers' first class for all transformers of images, by its kind of norm. */
const successors: Readonly<Record<string, string>> = {
  ada_norm_zero: 'DiTTransformer2DModel',
  ada_norm_single: 'PixArtTransformer2DModel',
};
/** Its fields that a class of today may lack, and what they say where they say nothing. */
const retired: Readonly<Record<string, unknown>> = {
  attention_type: 'default',
  caption_channels: null,
  cross_attention_dim: null,
  double_self_attention: false,
  interpolation_scale: null,
  num_vector_embeds: null,
  only_cross_attention: false,
  use_additional_conditions: null,
  use_linear_projection: false,
};

/**
 * A config.json as it would be written today: folders of DiT and PixArt on the hub are of the class
 * `Transformer2DModel`, which diffusers has since parted by the kind of norm.
 */
export function modernConfig(json: ConfigJson | null): ConfigJson | null {
  const successor = json?._class_name === 'Transformer2DModel' ? successors[String(json.norm_type)] : undefined;
  if (!json || !successor) return json;
  const fields = Object.entries(json).filter(([name, value]) => !(name in retired && value === retired[name]));
  return { ...Object.fromEntries(fields), _class_name: successor };
}
