import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { Conv2d, Embedding, JointTransformerBlock, LabelEmbedding, Linear, Module, zeroed } from './index.js';

class Part extends Module {
  readonly proj: Linear;
  constructor(rng: Generator) {
    super();
    this.proj = new Linear(2, 3, rng);
  }
}
class Whole extends Module {
  readonly downBlocks: readonly Part[];
  readonly linear_1: Linear;
  readonly again: Linear;
  constructor(rng: Generator) {
    super();
    this.downBlocks = [new Part(rng), new Part(rng)];
    this.linear_1 = new Linear(3, 1, { bias: false }, rng);
    this.again = this.linear_1;
  }
}

describe('Module', () => {
  it('names variables and modules by their path, shared ones once', () => {
    const whole = new Whole(new Generator(0));
    expect([...whole.namedVariables().keys()]).toEqual([
      'down_blocks.0.proj.weight',
      'down_blocks.0.proj.bias',
      'down_blocks.1.proj.weight',
      'down_blocks.1.proj.bias',
      'linear_1.weight',
    ]);
    expect([...whole.namedModules().keys()]).toEqual([
      '',
      'down_blocks.0',
      'down_blocks.0.proj',
      'down_blocks.1',
      'down_blocks.1.proj',
      'linear_1',
    ]);
    expect(whole.parameterCount()).toBe(21);
  });

  it('loads what it saved, and refuses what does not fit', () => {
    const [a, b] = [new Whole(new Generator(0)), new Whole(new Generator(1))];
    const state = a.stateDict();
    b.loadStateDict(state);
    expect(b.linear_1.weight.value).toEqual(a.linear_1.weight.value);
    expect(b.linear_1.weight.value.data).not.toBe(a.linear_1.weight.value.data);

    const renamed = new Map([...state].map(([name, x]) => [name.replace('linear_1', 'head'), x]));
    expect(() => b.loadStateDict(renamed)).toThrow(/missing linear_1\.weight; unexpected head\.weight/);
    const reshaped = new Map(state).set('linear_1.weight', ndarray([1, 2, 3], [3, 1]));
    expect(() => b.loadStateDict(reshaped)).toThrow('linear_1.weight has shape [1,3]');
  });

  it('has the names of diffusers in a joint block of Stable Diffusion 3', () => {
    const config = {
      dim: 8,
      numAttentionHeads: 2,
      attentionHeadDim: 4,
      qkNorm: 'rms_norm',
      contextPreOnly: true,
    } as const;
    const names = [...new JointTransformerBlock(config, new Generator(0)).namedVariables().keys()];
    expect(names).toContain('norm1_context.linear.weight');
    expect(names).toContain('attn.norm_added_q.weight');
    expect(names).toContain('attn.to_out.0.bias');
    expect(names).toContain('ff.net.0.proj.weight');
    expect(names).toContain('ff.net.2.bias');
    expect(names.filter((name) => /^attn\.to_add_out|ff_context/.test(name))).toEqual([]);
  });
});

describe('initial weights', () => {
  it('are drawn in PyTorch order: weight, then bias', () => {
    const linear = new Linear(4, 3, new Generator(7));
    const rng = new Generator(7);
    expect(linear.weight.value).toEqual(rng.uniform([3, 4], -0.5, 0.5));
    expect(linear.bias?.value).toEqual(rng.uniform([3], -0.5, 0.5));
  });

  it('are the same for the same seed, and can be zeroed', () => {
    const build = () => new Conv2d(4, 6, [1, 3], { groups: 2 }, new Generator(3));
    expect(build().stateDict()).toEqual(build().stateDict());
    expect(build().weight.shape).toEqual([6, 2, 1, 3]);
    expect(zeroed(build()).weight.value.data.every((x) => x === 0)).toBe(true);
    expect(() => new Conv2d(4, 6, 3, { groups: 4 }, new Generator(0))).toThrow('4 groups do not divide');
  });

  it('give label embeddings a null class only when labels can be dropped', () => {
    expect(new LabelEmbedding(10, 4, 0.1, new Generator(0)).embeddingTable.weight.shape).toEqual([11, 4]);
    expect(new LabelEmbedding(10, 4, 0, new Generator(0)).embeddingTable.weight.shape).toEqual([10, 4]);
    expect(new Embedding(5, 2, new Generator(0)).parameterCount()).toBe(10);
  });
});
