/**
 * What the layers of diffusers' UNet and autoencoder are called in CompVis' latent-diffusion code, whose names are in
 * single-file checkpoints of Stable Diffusion and in kohya's LoRA files.
 */

type Rules = readonly (readonly [diffusers: RegExp, ldm: (...groups: string[]) => string])[];

function renamed(name: string, rules: Rules): string | undefined {
  for (const [pattern, to] of rules) {
    const found = pattern.exec(name);
    if (found) return to(...found.slice(1));
  }
  return undefined;
}

const resnetParts: Readonly<Record<string, string>> = {
  norm1: 'in_layers.0',
  conv1: 'in_layers.2',
  time_emb_proj: 'emb_layers.1',
  norm2: 'out_layers.0',
  conv2: 'out_layers.3',
  conv_shortcut: 'skip_connection',
};

/** `down_blocks.1.resnets.0.conv1.weight` is `input_blocks.4.0.in_layers.2.weight`, where a stage has two layers. */
export function ldmUnetName(
  name: string,
  layersPerBlock: number,
  crossAttentionUp: readonly boolean[],
): string | undefined {
  const resnet = (path: string) => path.replace(/^[^.]+/, (part) => resnetParts[part] ?? part);
  const down = (stage: string, layer: string) => 1 + Number(stage) * (layersPerBlock + 1) + Number(layer);
  const up = (stage: string, layer: string | number) => Number(stage) * (layersPerBlock + 1) + Number(layer);
  return renamed(name, [
    [/^conv_in\.(.*)$/, (rest) => `input_blocks.0.0.${rest}`],
    [/^time_embedding\.linear_([12])\.(.*)$/, (i, rest) => `time_embed.${i === '1' ? 0 : 2}.${rest}`],
    [/^add_embedding\.linear_([12])\.(.*)$/, (i, rest) => `label_emb.0.${i === '1' ? 0 : 2}.${rest}`],
    [/^down_blocks\.(\d+)\.resnets\.(\d+)\.(.*)$/, (s, l, rest) => `input_blocks.${down(s, l)}.0.${resnet(rest)}`],
    [/^down_blocks\.(\d+)\.attentions\.(\d+)\.(.*)$/, (s, l, rest) => `input_blocks.${down(s, l)}.1.${rest}`],
    [
      /^down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)$/,
      (s, rest) => `input_blocks.${down(s, `${layersPerBlock}`)}.0.op.${rest}`,
    ],
    [/^mid_block\.resnets\.([01])\.(.*)$/, (i, rest) => `middle_block.${i === '0' ? 0 : 2}.${resnet(rest)}`],
    [/^mid_block\.attentions\.0\.(.*)$/, (rest) => `middle_block.1.${rest}`],
    [/^up_blocks\.(\d+)\.resnets\.(\d+)\.(.*)$/, (s, l, rest) => `output_blocks.${up(s, l)}.0.${resnet(rest)}`],
    [/^up_blocks\.(\d+)\.attentions\.(\d+)\.(.*)$/, (s, l, rest) => `output_blocks.${up(s, l)}.1.${rest}`],
    [
      /^up_blocks\.(\d+)\.upsamplers\.0\.(.*)$/,
      (s, rest) => `output_blocks.${up(s, layersPerBlock)}.${crossAttentionUp[Number(s)] ? 2 : 1}.${rest}`,
    ],
    [/^conv_norm_out\.(.*)$/, (rest) => `out.0.${rest}`],
    [/^conv_out\.(.*)$/, (rest) => `out.2.${rest}`],
  ]);
}

const attentionParts: Readonly<Record<string, string>> = {
  group_norm: 'norm',
  to_q: 'q',
  to_k: 'k',
  to_v: 'v',
  'to_out.0': 'proj_out',
};

/** `decoder.up_blocks.0.resnets.1.conv1.weight` is `decoder.up.3.block.1.conv1.weight`, of four stages. */
export function ldmVaeName(name: string, stages: number): string | undefined {
  const resnet = (path: string) => path.replace(/^conv_shortcut/, 'nin_shortcut');
  const attention = (path: string) => path.replace(/^(group_norm|to_[qkv]|to_out\.0)/, (part) => attentionParts[part]);
  return renamed(name, [
    [
      /^(encoder\.)down_blocks\.(\d+)\.resnets\.(\d+)\.(.*)$/,
      (e, s, l, rest) => `${e}down.${s}.block.${l}.${resnet(rest)}`,
    ],
    [/^(encoder\.)down_blocks\.(\d+)\.downsamplers\.0\.(.*)$/, (e, s, rest) => `${e}down.${s}.downsample.${rest}`],
    [
      /^(decoder\.)up_blocks\.(\d+)\.resnets\.(\d+)\.(.*)$/,
      (d, s, l, rest) => `${d}up.${stages - 1 - Number(s)}.block.${l}.${resnet(rest)}`,
    ],
    [
      /^(decoder\.)up_blocks\.(\d+)\.upsamplers\.0\.(.*)$/,
      (d, s, rest) => `${d}up.${stages - 1 - Number(s)}.upsample.${rest}`,
    ],
    [/^(\w+\.)mid_block\.resnets\.([01])\.(.*)$/, (p, i, rest) => `${p}mid.block_${Number(i) + 1}.${resnet(rest)}`],
    [/^(\w+\.)mid_block\.attentions\.0\.(.*)$/, (p, rest) => `${p}mid.attn_1.${attention(rest)}`],
    [/^(\w+\.)conv_norm_out\.(.*)$/, (p, rest) => `${p}norm_out.${rest}`],
    [/^(.*)$/, (same) => same],
  ]);
}
