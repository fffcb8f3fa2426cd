import { describe, expect, it, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { Attention } from '../nn/index.js';
import { Generator, normalWeights } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import {
  conditionings,
  configFromJson,
  configToJson,
  type DiTConditioning,
  DiTVariant,
  ditVariantConfig,
  ditVariantPresets,
} from './index.js';

const small = { inputSize: 8, patchSize: 4, inChannels: 1, hiddenSize: 16, depth: 2, numHeads: 2, numClasses: 3 };
const make = (conditioning: DiTConditioning) => new DiTVariant({ ...small, conditioning }, new Generator(0));
const x = normalWeights(new Generator(2), [2, 1, 8, 8]);
const times = ndarray([100, 500]);
const labels = ndarray([1, 3], [2], 'int64');

describe.each(conditionings)('DiTVariant, %s', (conditioning) => {
  it('predicts nothing at first, hears time and class later, and every parameter learns', async () => {
    const model = make(conditioning);
    const parameters = [...model.namedParameters()];
    const run = compile((x: Tensor, t: Tensor, y: Tensor) => {
      const answer = model.forward(x, t, y);
      const slopes = gradients(
        answer.square().sum(),
        parameters.map(([, v]) => v),
      );
      return { answer, slopes };
    });
    const first = await run(x, times, labels);
    expect(first.answer.shape).toEqual([2, 1, 8, 8]);
    expect(first.answer.data.every((value) => value === 0)).toBe(true);

    const rng = new Generator(5);
    for (const [, v] of parameters) v.set(rng.normal(v.shape, 0, 0.3));
    const { answer, slopes } = await run(x, times, labels);
    for (const other of [await run(x, ndarray([101, 501]), labels), await run(x, times, ndarray([0, 2], [2], 'int64'))])
      expect([...other.answer.data]).not.toEqual([...answer.data]);
    // Biases of keys change no softmax.
    for (const [i, [name]] of parameters.entries())
      if (!name.endsWith('to_k.bias'))
        expect(Math.max(...Array.from(slopes[i].data as Float32Array, Math.abs)), name).toBeGreaterThan(0);
    await run.release();
  });

  it('is what its config says', () => {
    const model = make(conditioning);
    const json = JSON.parse(JSON.stringify(configToJson(DiTVariant.className, model.config)));
    const back = new DiTVariant(configFromJson(DiTVariant.className, ditVariantConfig, json), new Generator(1));
    expect([...back.namedVariables().keys()]).toEqual([...model.namedVariables().keys()]);
    expect(back.config.conditioning).toBe(conditioning);
  });
});

describe('DiTVariant', () => {
  it('costs as many parameters as the paper says', () => {
    const { hiddenSize: d, depth } = small;
    const counted = Object.fromEntries(conditionings.map((name) => [name, make(name).parameterCount()]));
    const perBlock = (name: DiTConditioning) => (counted[name] - counted['in-context']) / depth;
    expect(perBlock('cross-attention')).toBe(4 * (d * d + d) + 2 * d);
    expect(perBlock('channel-wise')).toBe(d * d + d);
    expect(counted['adaln-zero'] - counted.adaln).toBe(depth * 2 * (d * d + d));
  });

  it('starts as the identity only with adaln-zero', async () => {
    const block = make('adaln-zero').blocks[0];
    const tokens = normalWeights(new Generator(1), [2, 4, 16]);
    const run = compile((x: Tensor) => block.forward(x, { tokens: x.slice(1, 0, 2), activated: x.mean(1) }));
    expect((await run(tokens)).data).toEqual(tokens.data);
    await run.release();
  });

  it('has attention that guidance can perturb, and the sizes of the DiT', () => {
    const layers = [...make('adaln').namedModules()].filter(([, layer]) => layer instanceof Attention);
    expect(layers.map(([name]) => name)).toEqual(['blocks.0.attn', 'blocks.1.attn']);
    expect(Object.keys(ditVariantPresets)).toEqual(['tiny', 'xxs', 'xs', 's', 'b', 'l', 'xl']);
  });

  test.each([
    [{ conditioning: 'film' }, 'conditioning'],
    [{ patchSize: 3 }, 'patches of 3 do not tile an image of 8'],
    [{ numHeads: 3 }, '3 heads do not divide hiddenSize 16'],
  ])('refuses %j', (odd, message) => {
    expect(() => new DiTVariant({ ...small, ...odd } as typeof small, new Generator(0))).toThrow(message);
  });

  it('refuses what does not fit', async () => {
    const model = make('in-context');
    const unlabelled = compile((x: Tensor, t: Tensor) => model.forward(x, t));
    await expect(unlabelled(x, times)).rejects.toThrow('DiTVariant: needs class labels; 3 stands for no class');
    const odd = compile((x: Tensor, t: Tensor, y: Tensor) => model.forward(x, t, y));
    const image = normalWeights(new Generator(1), [2, 1, 6, 8]);
    await expect(odd(image, times, labels)).rejects.toThrow('patches of 4 do not tile images of 6x8');
  });
});
