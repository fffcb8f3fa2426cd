import { describe, expect, it } from 'vitest';
import { zeros } from '../array/index.js';
import { emitGraph, reachable, runAsWritten } from './graph.js';
import { checkpoint, constant, gradients, split, type Tensor, variable } from './index.js';
import { input } from './ops/leaves.js';
import { rewrite } from './rewrite.js';

const x = input([2, 3], 'float32');
const y = input([3], 'float32');

/** How often each operator stands in the graph of these outputs. */
function counts(outputs: readonly Tensor[]): Record<string, number> {
  const leaves = reachable(outputs).filter((t) => t.op.name === 'input');
  const { graph } = emitGraph({ inputs: new Map(leaves.map((t, i) => [t, `i${i}`])), weights: new Map(), outputs });
  const found: Record<string, number> = {};
  for (const { type } of graph.nodes) found[type] = (found[type] ?? 0) + 1;
  return found;
}

describe('the same operation on the same inputs', () => {
  it('is the same node', () => {
    expect(x.add(y)).toBe(x.add(y));
    expect(x.sum(1)).toBe(x.sum(-1));
    expect(x.mul(2)).toBe(x.mul(2));
    expect(constant(2)).toBe(constant(2));
    expect(split(x, 3, 1)[2]).toBe(split(x, 3, 1)[2]);
  });

  it('is another with other attributes, operands or dtypes', () => {
    expect(x.sum(1)).not.toBe(x.sum(0));
    expect(x.sub(y)).not.toBe(y.sub(x));
    expect(constant(2)).not.toBe(constant(2, 'int64'));
    expect(constant(0)).not.toBe(constant(-0));
    expect(variable(zeros([1]))).not.toBe(variable(zeros([1])));
  });

  it('is nothing where it changes nothing', () => {
    for (const same of [x.add(0), x.mul(1), x.div(1), x.pow(1), x.reshape([2, 3]), x.expand([2, 3]), x.slice(0, 0)])
      expect(same).toBe(x);
  });

  it('is emitted once for two branches that begin alike', () => {
    const prefix = () => x.tanh().matmul(x.transpose()).exp();
    expect(counts([prefix().sum(), prefix().max()])).toMatchObject({ Tanh: 1, MatMul: 1, Exp: 1 });
  });
});

describe('emitted graphs', () => {
  it('hold what the outputs need, and small constants once', () => {
    x.add(y).exp();
    expect(counts([x.mul(2).add(2)])).toEqual({ Mul: 1, Add: 1 });
    const { graph } = emitGraph({ inputs: new Map([[x, 'x']]), weights: new Map(), outputs: [x.mul(2).add(2)] });
    expect(graph.initializers.map(({ array }) => [...array.data])).toEqual([[2]]);
    expect(graph.inputs).toEqual([{ name: 'x', dtype: 'float32', shape: [2, 3] }]);
  });

  it('have single numbers in the rank of columns that they meet: of another rank, onnxruntime is ten times slower', () => {
    const [column, one] = [input([2, 3, 1], 'float32'), input([], 'float32')];
    const inputs = new Map([column, one, x].map((t, i) => [t, `i${i}`]));
    const shapes = (output: Tensor) => {
      const { graph } = emitGraph({ inputs, weights: new Map(), outputs: [output] });
      return graph.initializers.map(({ array }) => array.shape);
    };
    expect(shapes(column.mul(2))).toEqual([[1, 1, 1]]);
    expect(shapes(x.mul(2))).toEqual([[]]);
    expect(counts([column.mul(one)])).toEqual({ Reshape: 1, Mul: 1 });
    expect(counts([x.mul(one)])).toEqual({ Mul: 1 });
  });

  it('give every output a value of its own', () => {
    const z = x.exp();
    const { graph, outputNames } = emitGraph({ inputs: new Map([[x, 'x']]), weights: new Map(), outputs: [z, z, x] });
    expect(new Set(outputNames).size).toBe(3);
    expect(graph.nodes.map((node) => node.type).sort()).toEqual(['Exp', 'Identity', 'Identity']);
  });

  it('are filed so that they run as written', () => {
    const node = (output: string, ...inputs: string[]) => ({
      type: 'N',
      domain: '',
      inputs,
      outputs: [output],
      attributes: {},
    });
    // Of two leaves the first one written stands last, and so does of two inputs the first one written.
    const leaves = [node('a', 'x'), node('first', 'a'), node('b', 'a'), node('second', 'b')];
    expect(runAsWritten(leaves).map((n) => n.outputs[0])).toEqual(['a', 'b', 'second', 'first']);
    const chain = [node('early', 'x'), node('late', 'x'), node('sum', 'early', 'late')];
    expect(runAsWritten(chain).map((n) => n.outputs[0])).toEqual(['late', 'early', 'sum']);
    const body = { inputs: [], outputs: [], initializers: [], nodes: [node('inside', 'a')] };
    const loop = { ...node('loop', ''), attributes: { body: { g: body } } };
    expect(runAsWritten([node('a', 'x'), loop]).map((n) => n.outputs[0])).toEqual(['a', 'loop']);
  });

  it('refuse inputs of other functions', () => {
    expect(() => emitGraph({ inputs: new Map(), weights: new Map(), outputs: [x.add(1)] })).toThrow(
      "compile: a tensor [2,3] from another function's inputs is used",
    );
  });
});

describe('checkpoint', () => {
  const block = (t: Tensor) => t.tanh().exp().tanh();

  it('computes a section again for its gradient', () => {
    const plain = block(block(x)).sum();
    expect(counts([plain, ...gradients(plain, [x])])).toMatchObject({ Tanh: 4, Exp: 2 });
    const other = input([2, 3], 'float32');
    const kept = checkpoint(() => block(checkpoint(() => block(other)))).sum();
    expect(counts([kept])).toMatchObject({ Tanh: 4, Exp: 2 });
    // All but the results of the sections, which are kept.
    expect(counts([kept, ...gradients(kept, [other])])).toMatchObject({ Tanh: 6, Exp: 4 });
  });

  it('survives a rewriting that touches every node', () => {
    const other = input([2, 3], 'float32');
    const kept = checkpoint(() => block(other.abs())).sum();
    const outputs = [kept, ...gradients(kept, [other])];
    const { Abs, ...rest } = counts(outputs);
    expect({ Abs, Exp: rest.Exp }).toEqual({ Abs: 2, Exp: 2 });
    expect(counts(rewrite(outputs, { abs: ([t]) => t.sin() }))).toEqual({ ...rest, Sin: Abs });
  });
});

describe('rewrite', () => {
  it('leaves what no rule touches', () => {
    const [a, b] = [x.exp(), y.tanh()];
    const [first, ...others] = rewrite([a, b, b.mul(x)], { exp: ([t]) => t.add(1) });
    expect(first.op.name).toBe('add');
    expect(others).toEqual([b, b.mul(x)]);
    expect(others[0]).toBe(b);
  });

  it('goes on to the further outputs of a node', () => {
    const parts = split(x.neg(), 3, 1);
    expect(counts(rewrite(parts, { neg: ([t]) => t.abs() }))).toEqual({ Abs: 1, Split: 1 });
  });
});
