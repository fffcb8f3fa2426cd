import type { AutoencoderKL, AutoencoderTiny, AutoencoderUse, DiagonalGaussian } from '../../src/models/index.js';
import { modelClass } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** How a case's model was switched, as its note tells: `enable_tiling with tile_sample_min_size=16, ...`. */
function use({ description }: ReferenceCase): AutoencoderUse {
  const note = String(description.note ?? '');
  const number = (name: string) => {
    const value = new RegExp(`${name}\\s*=\\s*([\\d.]+)`).exec(note)?.[1];
    return value === undefined ? undefined : Number(value);
  };
  return {
    slicing: note.includes('enable_slicing'),
    tiling: note.includes('enable_tiling') && {
      tileSampleMinSize: number('tile_sample_min_size'),
      tileLatentMinSize: number('tile_latent_min_size'),
      tileOverlapFactor: number('tile_overlap_factor'),
    },
  };
}

async function autoencoderKl(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as AutoencoderKL;
  model.loadStateDict(reference.weights);
  const asked = new Set(reference.expected().map(([name]) => name));
  const options = use(reference);
  const run = compile((inputs: Readonly<Record<string, Tensor>>) => {
    const { image, latent } = inputs;
    const outputs: Record<string, () => Tensor> = latent ? { 'out.decoded': () => model.decode(latent, options) } : {};
    if (image) {
      const posterior = model.encode(image, options);
      Object.assign(outputs, ofPosterior(posterior, inputs), {
        'out.decoded_mode': () => model.decode(posterior.mode(), options),
      });
    }
    return Object.fromEntries(
      Object.entries(outputs)
        .filter(([name]) => asked.has(name))
        .map(([name, make]) => [name, make()]),
    );
  });
  const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
  const outputs = await run(inputs);
  await run.release();
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
  const options = use(reference);
  const run = compile(({ image, latent }: { image?: Tensor; latent?: Tensor }) => ({
    ...(image && { 'out.latents': model.encode(image, options) }),
    ...(latent && { 'out.decoded': model.decode(latent, options) }),
    ...(image && asked.has('out.sample') && { 'out.sample': model.forward(image) }),
  }));
  const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
  const outputs = await run(inputs);
  await run.release();
  return outputs;
}

export const adapters: Readonly<Record<string, Adapter>> = {
  AutoencoderKL: autoencoderKl,
  AutoencoderTiny: autoencoderTiny,
};
