import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray, toHalf, zeros } from '../array/index.js';
import {
  type Attributes,
  type DeviceValue,
  encodeModel,
  type OnnxGraph,
  type OnnxNode,
  Session,
  toDeviceValue,
  toHost,
} from './index.js';

const node = (
  type: string,
  inputs: string[],
  outputs: string[],
  attributes: Attributes = {},
  domain = '',
): OnnxNode => ({
  type,
  domain,
  inputs,
  outputs,
  attributes,
});
const value = (name: string, shape: (number | string)[], dtype: NdArray['dtype'] = 'float32') => ({
  name,
  dtype,
  shape,
});
const graph = (parts: Partial<OnnxGraph>): OnnxGraph => ({
  inputs: [],
  outputs: [],
  initializers: [],
  nodes: [],
  ...parts,
});

async function run(parts: Partial<OnnxGraph>, feeds: Record<string, NdArray>): Promise<Record<string, NdArray>> {
  const session = await Session.create(graph(parts), { device: 'cpu', optimization: 'none' });
  const fed = Object.entries(feeds).map(([name, array]) => [name, toDeviceValue(array)] as const);
  const outputs = parts.outputs!.map(({ name }) => name);
  const results = await session.run(Object.fromEntries(fed) as Record<string, DeviceValue>, outputs);
  await session.release();
  return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, toHost(result)]));
}

describe('an encoded graph', () => {
  it('runs, with every kind of attribute', async () => {
    const x = ndarray([1, 2, 3, 4], [1, 1, 2, 2]);
    const { up, gemm } = await run(
      {
        inputs: [value('x', [1, 1, 2, 2])],
        outputs: [value('up', [1, 1, 4, 4]), value('gemm', [2, 2])],
        initializers: [
          { name: 'scales', array: ndarray([1, 1, 2, 2]), external: false },
          { name: 'shape', array: ndarray([2, 2], [2], 'int64'), external: false },
        ],
        nodes: [
          node('Resize', ['x', '', 'scales'], ['up'], { mode: { s: 'nearest' } }),
          node('Transpose', ['x'], ['turned'], { perm: { ints: [0, 1, 3, 2] } }),
          node('Reshape', ['turned', 'shape'], ['m'], { allowzero: { i: 0 } }),
          node('Gemm', ['m', 'm'], ['gemm'], { alpha: { f: 0.5 }, transB: { i: 1 } }),
        ],
      },
      { x },
    );
    expect([...up.data].slice(0, 8)).toEqual([1, 1, 2, 2, 1, 1, 2, 2]);
    expect(gemm).toEqual(ndarray([5, 7, 7, 10], [2, 2]));
  });

  it('leaves a size open by name', async () => {
    const session = await Session.create(
      graph({
        inputs: [value('x', ['n', 2])],
        outputs: [value('y', ['n', 2])],
        nodes: [node('Neg', ['x'], ['y'])],
      }),
      { device: 'cpu', optimization: 'all' },
    );
    for (const n of [1, 3]) {
      const { y } = await session.run({ x: toDeviceValue(zeros([n, 2])) }, ['y']);
      expect(y.dims).toEqual([n, 2]);
    }
    await session.release();
  });

  it('runs operators of other domains, and subgraphs', async () => {
    const body = graph({
      inputs: [value('i', [], 'int64'), value('on', [], 'bool'), value('sum', [2])],
      outputs: [value('still', [], 'bool'), value('next', [2])],
      nodes: [node('Identity', ['on'], ['still']), node('Add', ['sum', 'q'], ['next'])],
    });
    const { y } = await run(
      {
        inputs: [value('x', [2])],
        outputs: [value('y', [2])],
        initializers: [{ name: 'trips', array: ndarray([3], [], 'int64'), external: false }],
        nodes: [
          node('QuickGelu', ['x'], ['q'], { alpha: { f: 0 } }, 'com.microsoft'),
          node('Loop', ['trips', '', 'x'], ['y'], { body: { g: body } }),
        ],
      },
      { x: ndarray([2, 4]) },
    );
    expect([...y.data]).toEqual([5, 10]);
  });

  it.each([false, true])('holds weights of every dtype, beside the model or in it (external %s)', async (external) => {
    const float = ndarray(Float32Array.from({ length: 40 }, (_, i) => i / 4 - 5));
    const integers = Array.from({ length: 40 }, (_, i) => i - 20);
    const arrays: NdArray[] = [
      float,
      ndarray(integers, [40], 'float64'),
      toHalf(float, 'float16'),
      toHalf(float, 'bfloat16'),
      ndarray(integers, [40], 'int64'),
      ndarray(integers, [40], 'int32'),
      ndarray(integers, [40], 'int16'),
      ndarray(integers, [40], 'int8'),
      ndarray(
        integers.map((i) => i + 20),
        [40],
        'uint8',
      ),
      ndarray(
        integers.map((i) => i & 1),
        [40],
        'bool',
      ),
    ];
    const results = await run(
      {
        outputs: arrays.map((_, i) => value(`y${i}`, [40])),
        initializers: arrays.map((array, i) => ({ name: `w${i}`, array, external })),
        nodes: arrays.map((_, i) => node('Cast', [`w${i}`], [`y${i}`], { to: { i: 1 } })),
      },
      {},
    );
    const expected = (array: NdArray) =>
      array.dtype.includes('float') ? [...(array.dtype === 'float64' ? array : float).data] : [...array.data];
    for (const [i, array] of arrays.entries())
      expect([...results[`y${i}`].data], array.dtype).toEqual(expected(array).map(Number));
  });

  it('reads a weight that is a view into a larger buffer', async () => {
    const file = new Uint8Array(4 + 4 * 512);
    const view = ndarray(new Float32Array(file.buffer, 4, 512).fill(0.5));
    const { y } = await run(
      {
        outputs: [value('y', [])],
        initializers: [{ name: 'w', array: view, external: true }],
        nodes: [node('ReduceSum', ['w'], ['y'], { keepdims: { i: 0 } })],
      },
      {},
    );
    expect(y).toEqual(ndarray([256], []));
  });

  it('is a stable sequence of bytes', () => {
    const parts = graph({
      inputs: [value('x', [0, 300])],
      outputs: [value('y', [0, 300])],
      nodes: [node('Neg', ['x'], ['y'])],
    });
    expect(Buffer.from(encodeModel(parts)).toString('hex')).toMatchInlineSnapshot(
      `"0809120b6e6f6973657772696768743a4b0a100a01781201791a017922034e65673a00120b6e6f6973657772696768745a140a0178120f0a0d080112090a0208000a0308ac0262140a0179120f0a0d080112090a0208000a0308ac0242040a001014"`,
    );
  });
});

describe('Session', () => {
  it('says why a graph is refused', async () => {
    const broken = graph({ outputs: [value('y', [1])], nodes: [node('NoSuchOp', [], ['y'])] });
    await expect(Session.create(broken, { device: 'cpu', optimization: 'all' })).rejects.toThrow('NoSuchOp');
  });

  it('gives float16 as bits, as it takes them', async () => {
    const x = toHalf(ndarray([1.5, -2]), 'float16');
    const { y } = await run(
      {
        inputs: [value('x', [2], 'float16')],
        outputs: [value('y', [2], 'float16')],
        nodes: [node('Identity', ['x'], ['y'])],
      },
      { x },
    );
    expect(y).toEqual(x);
    expect(() => toDeviceValue(toHalf(ndarray([1]), 'bfloat16'))).toThrow(
      'onnxruntime takes no bfloat16 input: convert it with toFloat32 first',
    );
  });
});
