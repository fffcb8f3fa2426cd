import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DataOf, type NdArray, ndarray, type Shape, sizeOf, toHalf } from '../../array/index.js';
import { writeFolderAtomic, writeJson, writeSafetensors } from '../../io/node/index.js';
import { AutoencoderKL, modelToJson, piecewise, type StoredModel, UNet2DCondition } from '../../models/index.js';
import { Blank, loadComponent } from '../../models/node/index.js';
import { fans, Generator } from '../../random/index.js';
import { compile, flops, type Tensor, variable } from '../../tensor/index.js';
import type { Job, JobSpec } from './jobs.js';

export const sd15JobNames = ['sd15-step', 'sd15-vae-decode'] as const;
export type Sd15JobName = (typeof sd15JobNames)[number];
export type Sd15Dtype = 'float32' | 'float16';

/** Numbers drawn once; every weight repeats them, scaled as PyTorch's layers begin. */
const POOL = 2 ** 20;

/** A weight that is made when it is written, so that a model of gigabytes needs no memory. */
class RandomArray implements NdArray {
  constructor(
    readonly shape: Shape,
    readonly dtype: Sd15Dtype,
    private readonly pool: NdArray<'float32'>,
    private readonly isScale: boolean,
  ) {}

  get data(): DataOf<Sd15Dtype> {
    const size = sizeOf(this.shape);
    if (this.shape.length < 2) return this.stored(new Float32Array(size).fill(Number(this.isScale)));
    const bound = 1 / Math.sqrt(fans(this.shape).fanIn);
    const pool = this.stored(this.pool.data.subarray(0, size).map((x) => x * bound));
    const data = this.dtype === 'float32' ? new Float32Array(size) : new Uint16Array(size);
    for (let i = 0; i < size; i += POOL) data.set(size - i < POOL ? pool.subarray(0, size - i) : pool, i);
    return data;
  }

  private stored(values: Float32Array<ArrayBuffer>): DataOf<Sd15Dtype> {
    return this.dtype === 'float32' ? values : toHalf(ndarray(values), this.dtype).data;
  }
}

/**
 * The folder of a model with Stable Diffusion 1.5's shapes (UNet and autoencoder) and random weights, written if it is
 * not there yet: 3.8 GB in float32, half of that in float16.
 * @param folder default: one in the system's folder for temporary files.
 */
export async function sd15Folder(dtype: Sd15Dtype, folder = join(tmpdir(), `noisewright-sd15-${dtype}`)) {
  if (await stat(join(folder, 'model_index.json')).catch(() => undefined)) return folder;
  const pool = new Generator(0).uniform([POOL], -1, 1);
  const blank = new Blank();
  const parts = {
    unet: new UNet2DCondition({ sampleSize: 64, crossAttentionDim: 768 }, blank),
    vae: new AutoencoderKL(
      {
        blockOutChannels: [128, 256, 512, 512],
        downBlockTypes: Array.from({ length: 4 }, () => 'DownEncoderBlock2D' as const),
        upBlockTypes: Array.from({ length: 4 }, () => 'UpDecoderBlock2D' as const),
        layersPerBlock: 2,
        sampleSize: 512,
      },
      blank,
    ),
  };
  await writeFolderAtomic(folder, async (aside) => {
    for (const [name, part] of Object.entries(parts)) {
      await writeJson(join(aside, name, 'config.json'), modelToJson(part));
      const weights = [...part.namedVariables()].map(
        ([label, { shape }]) => [label, new RandomArray(shape, dtype, pool, label.endsWith('.weight'))] as const,
      );
      await writeSafetensors(join(aside, name, 'diffusion_pytorch_model.safetensors'), new Map(weights));
    }
    await writeJson(join(aside, 'model_index.json'), {
      _class_name: 'StableDiffusionPipeline',
      unet: ['diffusers', UNet2DCondition.className],
      vae: ['diffusers', AutoencoderKL.className],
    });
  });
  return folder;
}

const isStep = (name: string): boolean => name === 'sd15-step';

const openPart = ({ name, model }: JobSpec): Promise<StoredModel> =>
  loadComponent(join(model!, isStep(name) ? 'unet' : 'vae'));

const inputsOf = ({ name, batch, size = 64 }: JobSpec): NdArray[] => {
  const rng = new Generator(1);
  const latents = rng.randn([batch, 4, size, size]);
  return isStep(name) ? [latents, ndarray(new Float32Array(batch).fill(500)), rng.randn([batch, 77, 768])] : [latents];
};

const forward =
  (model: StoredModel) =>
  ([x, t, encoderHiddenStates]: readonly Tensor[]): Tensor =>
    model instanceof UNet2DCondition
      ? model.forward(x, t, { encoderHiddenStates })
      : (model as AutoencoderKL).decode(x);

/** One prediction of the UNet, or one decoding; a latent of 64x64 stands for 512x512 pixels. */
export async function sd15Job(spec: JobSpec): Promise<Job> {
  const model = await openPart(spec);
  const { threads, tile, weights } = spec;
  const inputs = inputsOf(spec);
  const parameters = parametersOf(model, spec);
  if (model instanceof AutoencoderKL && tile) {
    const tiles = model.decoderTiles({ tileSampleMinSize: tile });
    const [latents] = inputs as NdArray<'float32'>[];
    return {
      parameters,
      async step() {
        await piecewise(latents, (x) => model.decode(x), { tiles }, { threads, weights });
      },
    };
  }
  const run = compile(forward(model), { freeze: true, threads, weights });
  return {
    parameters,
    async step() {
      await run(inputs);
    },
  };
}

/** Those that the job uses. */
const parametersOf = (model: StoredModel, { name }: JobSpec): number =>
  [...model.namedVariables()]
    .filter(([label]) => isStep(name) || /^(decoder|post_quant)/.test(label))
    .reduce((sum, [, { size }]) => sum + size, 0);

export async function sd15Flops(spec: JobSpec): Promise<number> {
  return flops([forward(await openPart(spec))(inputsOf(spec).map((input) => variable(input)))]);
}
