import type { NdArray } from '../../src/array/index.js';
import {
  type AutoencoderKL,
  type AutoencoderTiny,
  DiagonalGaussian,
  modelClass,
  piecewise,
} from '../../src/models/index.js';
import type { Autoencoder } from '../../src/pipelines/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** How a case's model was switched, as its note tells: `enable_tiling with tile_sample_min_size=16, ...`. */
function piecesOf(model: Autoencoder, { description }: ReferenceCase) {
  const note = String(description.note ?? '');
  const number = (name: string) => {
    const value = new RegExp(`${name}\\s*=\\s*([\\d.]+)`).exec(note)?.[1];
    return value === undefined ? undefined : Number(value);
  };
  const tiling = {
    tileSampleMinSize: number('tile_sample_min_size'),
    tileLatentMinSize: number('tile_latent_min_size'),
    tileOverlapFactor: number('tile_overlap_factor'),
  };
  const tiled = note.includes('enable_tiling');
  const slicing = note.includes('enable_slicing');
  return {
    toEncode: { slicing, tiles: tiled ? model.encoderTiles(tiling) : undefined },
    toDecode: { slicing, tiles: tiled ? model.decoderTiles(tiling) : undefined },
  };
}

async function autoencoderKl(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as AutoencoderKL;
  model.loadStateDict(reference.weights);
  const asked = new Set(reference.expected().map(([name]) => name));
  const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
  const { toEncode, toDecode } = piecesOf(model, reference);
  const { image, latent } = inputs as Readonly<Record<string, NdArray<'float32'>>>;
  const decode = (z: NdArray<'float32'>) => piecewise(z, (x) => model.decode(x), toDecode);
  const outputs: Record<string, NdArray> = {};
  if (latent && asked.has('out.decoded')) outputs['out.decoded'] = await decode(latent);
  if (image) {
    const moments = await piecewise(image, (x) => model.encode(x).moments, toEncode);
    const run = compile((x: Tensor, given: Readonly<Record<string, Tensor>>) =>
      Object.fromEntries(
        Object.entries(ofPosterior(new DiagonalGaussian(x), given))
          .filter(([name]) => name === 'out.mode' || asked.has(name))
          .map(([name, make]) => [name, make()]),
      ),
    );
    const { 'out.mode': mode, ...others } = await run(moments, inputs);
    await run.release();
    Object.assign(outputs, others, asked.has('out.mode') && { 'out.mode': mode });
    if (asked.has('out.decoded_mode')) outputs['out.decoded_mode'] = await decode(mode as NdArray<'float32'>);
  }
  return outputs;
}

const ofPosterior = (
  posterior: DiagonalGaussian,
  { noise, latent }: Readonly<Record<string, Tensor>>,
): Record<string, () => Tensor> => ({
  'out.mean': () => posterior.mean,
  'out.logvar': () => posterior.logvar,
  'out.std': () => posterior.std,
  'out.mode': () => posterior.mode(),
  'out.kl': () => posterior.kl(),
  ...(noise && { 'out.sample': () => posterior.sample(noise) }),
  ...(latent && { 'out.nll': () => posterior.nll(latent) }),
});

async function autoencoderTiny(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as AutoencoderTiny;
  model.loadStateDict(reference.weights);
  const asked = new Set(reference.expected().map(([name]) => name));
  const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
  const { toEncode, toDecode } = piecesOf(model, reference);
  const { image, latent } = inputs as Readonly<Record<string, NdArray<'float32'>>>;
  return {
    ...(image && { 'out.latents': await piecewise(image, (x) => model.encode(x), toEncode) }),
    ...(latent && { 'out.decoded': await piecewise(latent, (x) => model.decode(x), toDecode) }),
    ...(image && asked.has('out.sample') && { 'out.sample': await piecewise(image, (x) => model.forward(x), {}) }),
  };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  AutoencoderKL: autoencoderKl,
  AutoencoderTiny: autoencoderTiny,
};
