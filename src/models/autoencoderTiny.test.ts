import { describe, expect, it } from 'vitest';
import type { NdArray } from '../array/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { AutoencoderTiny, type AutoencoderTinyOptions } from './autoencoderTiny.js';
import { piecewise, type Tiling } from './tiles.js';

const options: AutoencoderTinyOptions = {
  encoderBlockOutChannels: [4, 4, 4],
  decoderBlockOutChannels: [4, 4, 4],
  numEncoderBlocks: [1, 1, 1],
  numDecoderBlocks: [1, 1, 1],
  latentChannels: 2,
};
const rng = new Generator(3);
const vae = new AutoencoderTiny(options, rng);
const images = rng.randn([2, 3, 16, 24]);

const values = ({ data }: NdArray): number[] => Array.from(data as Float32Array);
const worst = (a: NdArray, b: NdArray): number => Math.max(...values(a).map((x, i) => Math.abs(x - values(b)[i])));
async function roundTrip({ tiling, slicing }: { tiling?: Tiling; slicing?: boolean }, x = images) {
  const pieces = (tiles: 'encoderTiles' | 'decoderTiles') => ({ slicing, tiles: tiling && vae[tiles](tiling) });
  const latents = await piecewise(x, (part) => vae.encode(part), pieces('encoderTiles'));
  return { latents, image: await piecewise(latents, (part) => vae.decode(part), pieces('decoderTiles')) };
}

describe('AutoencoderTiny', () => {
  it('has the names of its list of layers', () => {
    const names = [...vae.stateDict().keys()];
    expect(names.filter((name) => /^encoder\.layers\.[012]\./.test(name))).toEqual([
      'encoder.layers.0.weight',
      'encoder.layers.0.bias',
      ...[0, 2, 4].flatMap((i) => [`encoder.layers.1.conv.${i}.weight`, `encoder.layers.1.conv.${i}.bias`]),
      'encoder.layers.2.weight',
    ]);
    expect(names.at(-1)).toBe('decoder.layers.9.bias');
  });

  it('gives the same in slices and in one tile, and about the same in many', async () => {
    const whole = await roundTrip({});
    expect([vae.downsampling, whole.latents.shape, whole.image.shape]).toEqual([4, [2, 2, 4, 6], [2, 3, 16, 24]]);
    const once = await roundTrip({ slicing: true, tiling: {} });
    expect([worst(once.latents, whole.latents), worst(once.image, whole.image)]).toEqual([0, 0]);
    const tiled = await roundTrip({ tiling: { tileSampleMinSize: 16, tileOverlapFactor: 0.5 } });
    expect([tiled.latents.shape, tiled.image.shape]).toEqual([whole.latents.shape, whole.image.shape]);
    expect(worst(tiled.latents, whole.latents)).toBeGreaterThan(1e-4);
    const size = Math.max(...values(whole.latents).map(Math.abs));
    expect(worst(tiled.latents, whole.latents)).toBeLessThan(size);
  });

  it('learns through its rounding', async () => {
    const model = new AutoencoderTiny(options, new Generator(1));
    const parameters = model.parameters();
    const step = compile((x: Tensor) =>
      inTraining(() => {
        const loss = model.forward(x).sub(x).square().mean();
        const slopes = gradients(loss, parameters);
        for (const [i, p] of parameters.entries()) p.assign(p.sub(slopes[i].mul(0.05)));
        return { loss, ofFirst: slopes[0].abs().sum() };
      }),
    );
    const losses: number[] = [];
    for (let i = 0; i < 6; i++) {
      const { loss, ofFirst } = await step(images);
      losses.push(Number(loss.data[0]));
      expect(Number(ofFirst.data[0])).toBeGreaterThan(0);
    }
    expect(losses[5]).toBeLessThan(losses[0]);
  });

  it('names what does not fit', async () => {
    expect(() => new AutoencoderTiny({ ...options, encoderBlockOutChannels: [4, 8, 4] }, rng)).toThrow(
      /encoderBlockOutChannels \[4,8,4\] for 3 stages/,
    );
    await expect(roundTrip({ tiling: {} }, rng.randn([1, 3, 6, 8]))).rejects.toThrow(/6x8, expected multiples of 4/);
  });
});
