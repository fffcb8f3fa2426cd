import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { constant, evaluate, gradients, type Tensor } from '../tensor/index.js';
import { Attention, BasicTransformerBlock, FeedForward, L2Norm, withPerturbations } from './index.js';

const random = (seed: number, ...shape: number[]): Tensor => constant(new Generator(seed).randn(shape));
const config = { queryDim: 8, heads: 2, dimHead: 4 };

async function expectEqual(a: Tensor, b: Tensor): Promise<void> {
  const [x, y] = (await evaluate([a, b])) as NdArray<'float32'>[];
  expect(x.shape).toEqual(y.shape);
  x.data.forEach((value, i) => {
    expect(value).toBeCloseTo(y.data[i], 5);
  });
}

describe('Attention', () => {
  const x = random(1, 2, 5, 8);

  it('takes bool and float masks of two, three and four axes alike', async () => {
    const attention = new Attention(config, new Generator(0));
    const keep = [1, 1, 0, 1, 0, 1, 0, 1, 1, 1];
    const bool = constant(ndarray(keep, [2, 5], 'bool'));
    const float = constant(
      ndarray(
        keep.map((k) => (k ? 0 : -1e4)),
        [2, 1, 5],
      ),
    );
    const masked = (attentionMask: Tensor) => attention.forward(x, { attentionMask });
    await expectEqual(masked(bool), masked(float));
    await expectEqual(masked(bool.unsqueeze(1).unsqueeze(1)), masked(float));
    expect(() => masked(constant([0, 0]))).toThrow('mask [2]');
    // Tokens that are masked out change nothing.
    const changed = x.add(bool.not().cast('float32').unsqueeze(2));
    await expectEqual(
      masked(bool).slice(0, 0, 1).slice(1, 0, 2),
      attention.forward(changed, { attentionMask: bool }).slice(0, 0, 1).slice(1, 0, 2),
    );
  });

  it('reads an image as its positions', async () => {
    const attention = new Attention({ ...config, normNumGroups: 2, residualConnection: true }, new Generator(0));
    const image = random(2, 2, 8, 3, 2);
    const tokens = image.reshape([2, 8, 6]).swapAxes(1, 2);
    await expectEqual(attention.forward(image).reshape([2, 8, 6]).swapAxes(1, 2), attention.forward(tokens));
  });

  it('gives both streams of joint attention an output of their own', async () => {
    const attention = new Attention({ ...config, addedKvProjDim: 6, contextPreOnly: false }, new Generator(0));
    const { image, text } = attention.forwardJoint(x, random(3, 2, 4, 6));
    expect(image.shape).toEqual([2, 5, 8]);
    expect(text?.shape).toEqual([2, 4, 8]);
    expect(() => new Attention(config, new Generator(0)).forwardJoint(x, x)).toThrow('joint attention needs');
  });

  it('puts added keys before its own', async () => {
    const attention = new Attention({ ...config, addedKvProjDim: 6, normNumGroups: 2 }, new Generator(0));
    const image = random(2, 2, 8, 3, 2);
    const mask = constant(ndarray([1, 1, 1, 0, ...Array(6).fill(1)], [1, 10], 'bool')).expand([2, 10]);
    const context = random(4, 2, 4, 6);
    const without = attention.forward(image, { encoderHiddenStates: context.slice(1, 0, 3) });
    await expectEqual(attention.forward(image, { encoderHiddenStates: context, attentionMask: mask }), without);
  });

  it('compares unit vectors with qkNorm l2', async () => {
    const cosine = new Attention({ ...config, qkNorm: 'l2' }, new Generator(0));
    const longer = new Attention({ ...config, qkNorm: 'l2' }, new Generator(0));
    const state = [...cosine.stateDict()] as [string, NdArray<'float32'>][];
    const thrice = state.map(([name, w]): [string, NdArray] => [
      name,
      name === 'to_q.weight'
        ? ndarray(
            w.data.map((value) => 3 * value),
            w.shape,
          )
        : w,
    ]);
    longer.loadStateDict(new Map(thrice));
    await expectEqual(longer.forward(x), cosine.forward(x));
    const slope = gradients(new L2Norm().forward(x.mul(0)).sum(), [x])[0];
    await expectEqual(slope, x.mul(0));
  });

  it('has as many heads as fit into outDim', async () => {
    const wide = new Attention({ ...config, outDim: 12, dimHead: 5 }, new Generator(0));
    expect((await evaluate(wide.forward(x))).shape).toEqual([2, 5, 12]);
    expect(() => new Attention({ ...config, outDim: 10, dimHead: 3 }, new Generator(0))).toThrow(
      'outDim 10 cannot be shared by heads of dimHead 3',
    );
    expect(() => new Attention({ ...config, outDim: 2 }, new Generator(0))).toThrow('outDim 2');
  });

  it('refuses unknown norms', () => {
    expect(() => new Attention({ ...config, qkNorm: 'batch' as never }, new Generator(0))).toThrow("qkNorm 'batch'");
    expect(() => new Attention({ ...config, onlyCrossAttention: true }, new Generator(0))).toThrow('addedKvProjDim');
  });
});

describe('withPerturbations', () => {
  const x = random(1, 2, 5, 8);
  const blocks = [0, 1].map(
    (seed) => new BasicTransformerBlock({ dim: 8, numAttentionHeads: 2, attentionHeadDim: 4 }, new Generator(seed)),
  );
  const forward = () => blocks.reduce((y, block) => block.forward(y), x);

  it('replaces the core of attention: identity attention is to_out(to_v(x))', async () => {
    const { attn1 } = blocks[1];
    const perturbed = withPerturbations(new Map([[attn1, { attend: (_q, _k, v) => v }]]), () => attn1.forward(x));
    await expectEqual(perturbed, attn1.toOut![0].forward(attn1.toV!.forward(x)));
  });

  it('skips a layer by returning its input', () => {
    const [attention, feedForward] = [
      new Attention(config, new Generator(0)),
      new FeedForward({ dim: 8 }, new Generator(0)),
    ];
    const skip = new Map([attention, feedForward, blocks[0]].map((layer) => [layer, { skip: true }]));
    withPerturbations(skip, () => {
      expect(attention.forward(x)).toBe(x);
      expect(feedForward.forward(x)).toBe(x);
      expect(blocks[0].forward(x)).toBe(x);
    });
    expect(attention.forward(x)).not.toBe(x);
  });

  it('shares all nodes before the first perturbed layer, and ends with its scope', () => {
    const plain = forward();
    const perturbed = withPerturbations(new Map([[blocks[1].attn1, { skip: true }]]), () => {
      const first = blocks[0].forward(x);
      expect(first).toBe(blocks[0].forward(x));
      return forward();
    });
    expect(perturbed).not.toBe(plain);
    expect(forward()).toBe(plain);
  });

  it('nests: the inner scope wins', () => {
    const { attn1 } = blocks[0];
    withPerturbations(new Map([[attn1, { skip: true }]]), () => {
      withPerturbations(new Map([[attn1, {}]]), () => expect(attn1.forward(x)).not.toBe(x));
      expect(attn1.forward(x)).toBe(x);
    });
  });
});
