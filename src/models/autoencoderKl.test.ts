import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { AutoencoderKL, type AutoencoderKLOptions } from './autoencoderKl.js';
import { piecewise, type Tiling } from './tiles.js';

const options: AutoencoderKLOptions = {
  downBlockTypes: ['DownEncoderBlock2D', 'AttnDownEncoderBlock2D'],
  upBlockTypes: ['AttnUpDecoderBlock2D', 'UpDecoderBlock2D'],
  blockOutChannels: [4, 8],
  normNumGroups: 2,
  latentChannels: 2,
  sampleSize: 8,
};
const rng = new Generator(7);
const vae = new AutoencoderKL(options, rng);
const images = rng.randn([2, 3, 12, 16]);

const values = ({ data }: NdArray): number[] => Array.from(data as Float32Array);
const worst = (a: NdArray, b: NdArray): number => Math.max(...values(a).map((x, i) => Math.abs(x - values(b)[i])));
async function roundTrip({ tiling, slicing }: { tiling?: Tiling; slicing?: boolean }, x = images) {
  const pieces = (tiles: 'encoderTiles' | 'decoderTiles') => ({ slicing, tiles: tiling && vae[tiles](tiling) });
  const mean = await piecewise(x, (part) => vae.encode(part).mean, pieces('encoderTiles'));
  return { mean, image: await piecewise(mean, (part) => vae.decode(part), pieces('decoderTiles')) };
}

describe('AutoencoderKL', () => {
  it('halves once per stage but the last, and comes back to the size', async () => {
    const { mean, image } = await roundTrip({});
    expect([vae.downsampling, mean.shape, image.shape]).toEqual([2, [2, 2, 6, 8], [2, 3, 12, 16]]);
  });

  it('gives the same for one image after the other, and in one tile', async () => {
    const whole = await roundTrip({});
    for (const use of [{ slicing: true }, { tiling: { tileSampleMinSize: 16 } }]) {
      const other = await roundTrip(use);
      expect(worst(other.mean, whole.mean)).toBeLessThan(1e-5);
      expect(worst(other.image, whole.image)).toBeLessThan(1e-5);
    }
  });

  it('gives images of the same size, and a little different ones, in many tiles', async () => {
    const [whole, tiled] = [await roundTrip({}), await roundTrip({ tiling: {} })];
    expect([tiled.mean.shape, tiled.image.shape]).toEqual([whole.mean.shape, whole.image.shape]);
    expect(worst(tiled.mean, whole.mean)).toBeGreaterThan(1e-4);
    expect(() => vae.encoderTiles({ tileOverlapFactor: 1 })).toThrow(/cannot overlap by 1/);
  });

  it('scales latents as the config says, and back', async () => {
    const latents = rng.randn([1, 2, 3, 3]);
    const plain = { scalingFactor: 2, shiftFactor: 0.5 };
    const perChannel = { scalingFactor: 2, latentsMean: [1, -1], latentsStd: [2, 4] };
    for (const [config, expected] of [
      [plain, (x: number) => (x - 0.5) * 2],
      [perChannel, (x: number, i: number) => (i < 9 ? x - 1 : (x + 1) / 2)],
    ] as const) {
      const model = new AutoencoderKL({ ...options, ...config }, new Generator(0));
      const f = compile((z: Tensor) => ({
        scaled: model.scaleLatents(z),
        back: model.latentsFrom(model.scaleLatents(z)),
      }));
      const { scaled, back } = await f(latents);
      expect(worst(scaled, ndarray(values(latents).map(expected), latents.shape))).toBeLessThan(1e-6);
      expect(worst(back, latents)).toBeLessThan(1e-6);
    }
  });

  it('learns: reconstruction and divergence fall, and every weight has a gradient', async () => {
    const model = new AutoencoderKL(options, new Generator(1));
    const parameters = model.parameters();
    const step = compile((x: Tensor, noise: Tensor) =>
      inTraining(() => {
        const posterior = model.encode(x);
        const loss = model.decode(posterior.sample(noise)).sub(x).square().mean().add(posterior.kl().mean().mul(1e-3));
        const slopes = gradients(loss, parameters);
        for (const [i, p] of parameters.entries()) p.assign(p.sub(slopes[i].mul(0.02)));
        return { loss, sizes: slopes.map((g) => g.abs().sum()) };
      }),
    );
    const noise = rng.randn([2, 2, 6, 8]);
    const losses: number[] = [];
    for (let i = 0; i < 4; i++) {
      const { loss, sizes } = await step(images, noise);
      losses.push(Number(loss.data[0]));
      for (const [k, size] of sizes.entries()) {
        const name = [...model.namedParameters().keys()][k];
        // A key's bias moves all scores of a query alike.
        if (!name.endsWith('to_k.bias')) expect(Number(size.data[0]), name).toBeGreaterThan(0);
      }
    }
    expect(losses[3]).toBeLessThan(losses[0]);
    expect(losses.every(Number.isFinite)).toBe(true);
  });

  it('names what does not fit', () => {
    const create = (more: AutoencoderKLOptions) => () => new AutoencoderKL({ ...options, ...more }, new Generator(0));
    expect(create({ blockOutChannels: [4] })).toThrow(/1 blockOutChannels, 2 downBlockTypes/);
    expect(create({ latentsMean: [0] })).toThrow(/latentsMean has 1 entries for 2 latentChannels/);
    expect(create({ latentChannel: 3 } as AutoencoderKLOptions)).toThrow(/AutoencoderKL: .*latentChannel/);
  });
});
