import { type NdArray, ndarray, StoredArray } from '../../array/index.js';
import { fileError, hubSnapshot, isHubId, loadTokenizer, openSafetensors } from '../../io/node/index.js';
import { AutoencoderKL, CLIPTextModel, ldmNameOf, ldmVaeName, UNet2DCondition } from '../../models/index.js';
import { Blank } from '../../models/node/index.js';
import type { Module } from '../../nn/index.js';
import { pndm } from '../../samplers/index.js';
import type { CompileOptions } from '../../tensor/index.js';
import { ClipPrompts } from '../promptEncoders.js';
import { TextToImage } from '../textToImage.js';

export interface SingleFileOptions {
  /** A tokenizer's folder, which single files lack; default: CLIP's, from the hub's openai/clip-vit-large-patch14. */
  readonly tokenizer?: string;
  /** 'int8': denoise with large weights rounded to 8 bits, on the CPU only. */
  readonly weights?: CompileOptions['weights'];
}

const unetPrefix = 'model.diffusion_model.';
const vaePrefix = 'first_stage_model.';
const textPrefix = 'cond_stage_model.transformer.';

/**
 * Opens a single-file checkpoint of Stable Diffusion 1.x (CompVis' names; 4 or 9 input channels), as web interfaces use
 * them. The weights stay in the file.
 * @throws Error that names the file: no safetensors, of another family, with weights missing.
 */
export async function loadSingleFile(path: string, options: SingleFileOptions = {}): Promise<TextToImage> {
  const { tensors } = await openSafetensors(path);
  const refuse = (what: string) => fileError('read', path, new Error(what));
  const first = tensors.get(`${unetPrefix}input_blocks.0.0.weight`);
  const context = tensors.get(`${unetPrefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight`);
  if (!first) throw refuse('no single-file checkpoint of Stable Diffusion (model.diffusion_model.* is missing)');
  if (context?.shape[1] !== 768)
    throw refuse('of another family than Stable Diffusion 1.x; open the folder that diffusers has of it instead');

  const blank = new Blank();
  const model = new UNet2DCondition({ sampleSize: 64, inChannels: first.shape[1], crossAttentionDim: 768 }, blank);
  const vae = new AutoencoderKL(sd1Vae, blank);
  const textEncoder = new CLIPTextModel(sd1Text, blank);
  const load = (part: Module, prefix: string, nameOf: (name: string) => string | undefined) => {
    const weights = new Map<string, NdArray>();
    for (const [name, { shape }] of part.namedVariables()) {
      const stored = tensors.get(`${prefix}${nameOf(name)}`);
      if (!stored) throw refuse(`${prefix}${nameOf(name)} is missing`);
      weights.set(name, inShape(stored, shape));
    }
    part.loadStateDict(weights);
  };
  load(model, unetPrefix, (name) => ldmNameOf(model, name));
  load(vae, vaePrefix, (name) => ldmVaeName(name, vae.config.blockOutChannels.length));
  load(textEncoder, textPrefix, (name) => name);
  const tokenizer = await loadTokenizer(await tokenizerFolder(options.tokenizer));
  const sampler = pndm({ ...sd1Noise, skipPrkSteps: true, setAlphaToOne: false, stepsOffset: 1 });
  const prompts = new ClipPrompts({ tokenizer, model: textEncoder });
  return new TextToImage({ model, vae, sampler, prompts, weights: options.weights });
}

const sd1Noise = { betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012 } as const;
const sd1Vae = {
  sampleSize: 512,
  blockOutChannels: [128, 256, 512, 512],
  layersPerBlock: 2,
  downBlockTypes: [
    'DownEncoderBlock2D',
    'DownEncoderBlock2D',
    'DownEncoderBlock2D',
    'DownEncoderBlock2D',
  ] as 'DownEncoderBlock2D'[],
  upBlockTypes: [
    'UpDecoderBlock2D',
    'UpDecoderBlock2D',
    'UpDecoderBlock2D',
    'UpDecoderBlock2D',
  ] as 'UpDecoderBlock2D'[],
};
const sd1Text = { hiddenSize: 768, intermediateSize: 3072, numHiddenLayers: 12, numAttentionHeads: 12 };

/** Linear layers that were 1x1 convolutions there. */
function inShape(array: NdArray, shape: readonly number[]): NdArray {
  const same = `${array.shape}` === `${shape}`;
  if (same || `${array.shape}` !== `${[...shape, 1, 1]}`) return array;
  return array instanceof StoredArray ? array.reshaped(shape) : ndarray(array.data, shape, array.dtype);
}

async function tokenizerFolder(given = 'openai/clip-vit-large-patch14'): Promise<string> {
  if (!isHubId(given)) return given;
  const files = /(^|\/)(vocab\.json|merges\.txt|tokenizer_config\.json|special_tokens_map\.json)$/;
  return hubSnapshot(given, (paths) => paths.filter((path) => files.test(path)));
}
