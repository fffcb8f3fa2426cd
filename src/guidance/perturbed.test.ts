import { describe, expect, it } from 'vitest';
import type { NdArray } from '../array/index.js';
import { DiT, UNet2D, unet2dPresets } from '../models/index.js';
import { Attention, withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { constant, evaluate, type Tensor } from '../tensor/index.js';
import { autoguidance, type Branch, type Guider, pag, type SkipOptions, skipLayer, smoothedEnergy } from './index.js';

const rng = new Generator(0);
/** Fresh gates and heads are zero; these are not, so that layers matter. */
function awake<M extends DiT | UNet2D>(model: M): M {
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.2));
  return model;
}
const config = { numAttentionHeads: 2, attentionHeadDim: 4, sampleSize: 8, patchSize: 2, inChannels: 1 };
const dit = awake(new DiT({ ...config, numLayers: 3, numEmbedsAdaNorm: 4 }, rng));
const unet = awake(new UNet2D({ ...unet2dPresets.tiny, sampleSize: 8, inChannels: 1, outChannels: 1 }, rng));

const otherOf = (guider: Guider): Branch => guider.branches({ index: 0, total: 1, timestep: 0 })[1];
const timestep = constant([500]);
const labels = constant([1], 'int64');

/** What a guider moves away from, on an image of this size, and the plain prediction. */
async function predictions(model: DiT | UNet2D, guider: Guider, size: readonly [number, number] = [8, 8]) {
  const x = constant(new Generator(1).randn([1, 1, ...size]));
  const forward = () => model.forward(x, timestep, model === dit ? labels : undefined);
  const branch = otherOf(guider);
  const other = branch.predict?.(x, timestep, { labels }) ?? withPerturbations(branch.perturb!(model, size), forward);
  const [plain, perturbed] = (await evaluate([forward(), other])) as NdArray<'float32'>[];
  return { plain: plain.data, perturbed: perturbed.data };
}

describe('guiders that perturb layers', () => {
  it('change the prediction of transformers and U-Nets, of any shape', async () => {
    for (const guider of [pag(2), skipLayer(2), smoothedEnergy(2), smoothedEnergy(2, { sigma: 1 }), autoguidance(2)])
      for (const [model, size] of [
        [dit, [8, 8]],
        [dit, [4, 8]],
        [unet, [8, 16]],
      ] as const) {
        const { plain, perturbed } = await predictions(model, guider, size);
        expect(perturbed.every(Number.isFinite)).toBe(true);
        expect(perturbed).not.toEqual(plain);
      }
  });

  it('blur queries less and less as sigma falls, and entirely at infinity', async () => {
    const distance = async (sigma: number) => {
      const { plain, perturbed } = await predictions(dit, smoothedEnergy(2, { sigma, layers: [0, 1, 2] }));
      return Math.hypot(...plain.map((value, i) => value - perturbed[i]));
    };
    const [little, more, all] = [await distance(0.3), await distance(1), await distance(Number.POSITIVE_INFINITY)];
    expect(little).toBeLessThan(more);
    expect(more).toBeLessThan(all);
    expect(await distance(50)).toBeCloseTo(all, 1);
  });

  it('tell a grid of tokens from the size of the picture', () => {
    const attention = new Attention({ queryDim: 8, heads: 2, dimHead: 4 }, rng);
    const [branch] = [otherOf(smoothedEnergy(2, { sigma: 1, layers: 0 }))];
    const how = branch.perturb!(dit, [8, 16]).values().next().value!;
    const asked = (tokens: number): Tensor =>
      withPerturbations(new Map([[attention, how]]), () => attention.forward(constant(rng.randn([1, tokens, 8]))));
    expect(asked(32).shape).toEqual([1, 32, 8]);
    expect(() => asked(31)).toThrow('31 tokens are no grid over 8x16 pixels');
  });
});

describe('skipBranch', () => {
  const perturbed = async (options: SkipOptions) => [...(await predictions(dit, skipLayer(2, options))).perturbed];

  it('skips the middle block by default, or parts of any', async () => {
    const block = await perturbed({});
    expect(await perturbed({ layers: 1, skip: 'block' })).toEqual(block);
    const others = await Promise.all(
      (['attention', 'feedForward', 'scores'] as const).map((skip) => perturbed({ skip })),
    );
    expect(new Set([block, ...others].map(String)).size).toBe(4);
  });

  it('drops a share of outputs instead, the same from the same seed', async () => {
    const [a, b, c] = [
      await perturbed({ dropout: 0.5 }),
      await perturbed({ dropout: 0.5 }),
      await perturbed({ dropout: 0.5, seed: 1 }),
    ];
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
    expect(() => skipLayer(2, { dropout: 0 })).toThrow('dropout must lie in (0, 1), got 0');
    expect(() => skipLayer(2, { dropout: 0.5, skip: 'scores' })).toThrow("'scores' takes no dropout");
  });
});

describe('autoguidance', () => {
  const weaker = awake(new DiT({ ...config, numLayers: 1, numEmbedsAdaNorm: 4 }, rng));

  it('asks a weaker model', async () => {
    const { perturbed } = await predictions(dit, autoguidance(2, { weaker }));
    const x = constant(new Generator(1).randn([1, 1, 8, 8]));
    const own = (await evaluate(weaker.forward(x, timestep, labels))) as NdArray<'float32'>;
    expect(perturbed).toEqual(own.data);
    expect(otherOf(autoguidance(2, { condition: 'negative' })).condition).toBe('negative');
  });

  it('refuses both at once, and a model of other channels', () => {
    expect(() => autoguidance(2, { weaker, layers: 0 })).toThrow('expected a weaker model or layers to skip, got both');
    const { predict } = otherOf(autoguidance(2, { weaker }));
    expect(() => predict!(constant(rng.randn([1, 3, 8, 8])), timestep, { labels })).toThrow('takes 1 channels, got 3');
  });
});
