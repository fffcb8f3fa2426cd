import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { T5EncoderModel } from './t5Encoder.js';

const [vocabSize, length] = [11, 20];
const small = {
  vocabSize,
  dModel: 8,
  dKv: 3,
  dFf: 10,
  numLayers: 2,
  numHeads: 2,
  relativeAttentionNumBuckets: 8,
  relativeAttentionMaxDistance: 16,
};

/** Weights that another implementation can make, too. */
function weightsOf(model: T5EncoderModel): Map<string, NdArray> {
  const variables = model.namedVariables();
  return new Map(
    [...variables.keys()].sort().map((name, k) => {
      const { shape, size } = variables.get(name)!;
      return [
        name,
        ndarray(
          Float32Array.from({ length: size }, (_, i) => Math.sin(0.7 * i + k)),
          shape,
        ),
      ];
    }),
  );
}

async function rows(model: T5EncoderModel, mask?: NdArray): Promise<number[][]> {
  const ids = [(i: number) => 3 * i + 1, (i: number) => 5 * i * i + 2].flatMap((f) =>
    Array.from({ length }, (_, i) => f(i) % vocabSize),
  );
  const f = compile((ids: Tensor, { attentionMask }: { attentionMask?: Tensor }) =>
    model.forward(ids, { attentionMask }),
  );
  const states = await f(ndarray(ids, [2, length], 'int64'), mask ? { attentionMask: mask } : {});
  await f.release();
  const row = (n: number, i: number) =>
    [...(states.data as Float32Array)].slice((n * length + i) * 8, (n * length + i + 1) * 8);
  return [row(0, 0), row(0, 11), row(1, 7), row(1, 19)];
}

describe('T5EncoderModel', () => {
  it.each([
    [
      'gated-gelu',
      [
        [-0.08552, 0.24249, 1.86763, 0.1386, -0.02079, -0.25763, 1.34866, 1.22197],
        [0.06471, 0.94733, 1.3672, 0.48028, -0.01664, 0.42359, 1.36866, 0.97498],
        [-0.2262, -0.98003, 0.35574, -0.13469, 0.0978, -0.89974, -0.26023, 0.3158],
        [-0.06925, 0.49918, 1.46745, 0.87295, 0.12249, 0.06022, 1.18319, 1.30033],
      ],
    ],
    [
      'relu',
      [
        [1.09393, 0.9337, 0.47211, 0.10907, 1.13481, 0.96275, 0.79469, 0.03617],
        [1.0282, 0.90973, 0.50596, 0.11662, 1.13656, 0.88098, 0.83002, 0.03979],
        [-1.07932, -1.04542, -0.43417, -0.11907, -1.05489, -1.05883, -0.81698, -0.024],
        [-0.75945, -1.14354, -0.4697, -0.19441, -0.92983, -0.89974, -0.97995, -0.00486],
      ],
    ],
  ])('%s: computes what PyTorch does by the same formulas', async (feedForwardProj, expected) => {
    const model = new T5EncoderModel({ ...small, feedForwardProj }, new Generator(0));
    model.loadStateDict(weightsOf(model));
    const mask = ndarray(
      Float32Array.from({ length: 2 * length }, (_, i) => (i >= 12 && i < length ? 0 : 1)),
      [2, length],
    );
    const found = await rows(model, feedForwardProj === 'relu' ? undefined : mask);
    for (const [i, row] of expected.entries())
      for (const [j, value] of row.entries()) expect(Math.abs(found[i][j] - value), `${i} ${j}`).toBeLessThan(3e-5);
  });

  it("has transformers' names, and takes embeddings that are stored twice or as the encoder's", () => {
    const model = new T5EncoderModel({ ...small, feedForwardProj: 'gated-gelu' }, new Generator(0));
    const weights = weightsOf(model);
    expect([...weights.keys()]).toContain('encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight');
    expect([...weights.keys()]).toContain('encoder.block.1.layer.1.DenseReluDense.wi_0.weight');
    const twin = 'encoder.embed_tokens.weight';
    expect(() => model.loadStateDict(new Map([...weights, [twin, weights.get('shared.weight')!]]))).not.toThrow();
    const moved = new Map([...weights].map(([name, array]) => [name === 'shared.weight' ? twin : name, array]));
    expect(() => model.loadStateDict(moved)).not.toThrow();
    expect(() => new T5EncoderModel({ ...small, feedForwardProj: 'gated-x' }, new Generator(0))).toThrow(
      "activation 'x'",
    );
  });
});
