import { z } from 'zod';
import { type NdArray, ndarray, type Shape, sizeOf, toFloat32, toHalf } from '../../src/array/index.js';
import { biasUniform, Generator, kaimingUniform, normalWeights, truncNormal } from '../../src/random/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const shapeOf = (text: string): Shape => text.split('x').map(Number);
const int64 = (values: Iterable<number>): NdArray => ndarray([...values], undefined, 'int64');

/** Numbers between the dots of a key; decimals contain dots themselves: `0.3` is one number, `2.3` may be two. */
function decimals(parts: readonly string[], count: number): number[] {
  if (parts.length === count) return parts.map(Number);
  if (parts.length === 2 * count)
    return Array.from({ length: count }, (_, i) => Number(parts.slice(2 * i, 2 * i + 2).join('.')));
  throw new Error(`'${parts.join('.')}' does not read as ${count} numbers`);
}

/** One draw, named `operation.arguments.shape`. */
function draw(rng: Generator, key: string, weights: () => NdArray): NdArray {
  const [operation, ...parts] = key.split('.');
  const shape = shapeOf(parts[parts.length - 1]);
  const args = parts.slice(0, -1);
  switch (operation) {
    case 'rand':
      return rng.rand(shape);
    case 'randn':
      return rng.randn(shape);
    case 'rand_f64':
      return rng.rand(shape, 'float64');
    case 'randn_f64':
      return rng.randn(shape, 'float64');
    case 'half': // the sizes are drawn in float32, then rounded
      return toFloat32(toHalf(rng.randn(shape), 'float16'));
    case 'randint': {
      const [low, high] = decimals(args, 2);
      return rng.randint(low, high, shape);
    }
    case 'randperm':
      return int64(rng.randperm(shape[0]));
    case 'bernoulli':
      return rng.bernoulli(decimals(args, 1)[0], shape);
    case 'normal_': {
      const [mean, std] = decimals(args, 2);
      return rng.normal(shape, mean, std);
    }
    case 'uniform_': {
      const [low, high] = decimals(args, 2);
      return rng.uniform(shape, low, high);
    }
    case 'exponential_':
      return rng.exponential(shape);
    case 'multinomial_repl':
      return int64(rng.multinomial(weights().data as Float32Array, shape[0], { replacement: true }));
    case 'trunc_normal':
      return truncNormal(rng, shape);
    case 'raw_u32': // drawn as integers below 2^32, which take the low half of 64 bits
      return rng.randint(0, 2 ** 32, shape);
    case 'raw_random_': {
      const bits = BigInt64Array.from({ length: sizeOf(shape) }, () => BigInt.asUintN(63, rng.random64()));
      return ndarray(bits, shape, 'int64');
    }
    default:
      throw new Error(`no draw is called '${operation}'`);
  }
}

/** `linear_IN_OUT`, `conv_IN_OUT_KERNEL`, `embedding_COUNT_WIDTH`: layers as PyTorch starts them. */
function layer(rng: Generator, kind: string, sizes: readonly number[]): Outputs {
  if (kind === 'embedding') return { weight: normalWeights(rng, sizes) };
  const [fanIn, fanOut, kernel] = sizes;
  const shape = kind === 'conv' ? [fanOut, fanIn, kernel, kernel] : [fanOut, fanIn];
  return { weight: kaimingUniform(rng, shape), bias: biasUniform(rng, shape) };
}

/** Keys start from a fresh seed each, but those of a `seq_*` and of `generator` continue one stream in order. */
function cpuGenerator(reference: ReferenceCase): Outputs {
  const { seed } = reference.read(z.object({ seed: z.number() }));
  const weights = () => reference.given('multinomial_noreplace_input');
  const streams = new Map<string, Generator>();
  const stream = (name: string): Generator => {
    const rng = streams.get(name) ?? new Generator(seed);
    streams.set(name, rng);
    return rng;
  };
  const position = (key: string): number => Number(/^seq_\w+\.(\d+)\./.exec(key)?.[1] ?? key.includes('.second.'));
  const keys = [...reference.tensors.keys()].sort((a, b) => position(a) - position(b));
  const outputs: Record<string, NdArray> = {};
  for (const key of keys) {
    const layerKey = /^((linear|conv|embedding)_([\d_]+))\.(\w+)$/.exec(key);
    const sequence = /^(seq_\w+)\.\d+\.(.+)$/.exec(key) ?? /^(generator)\.(?:second\.)?(.+)$/.exec(key);
    const list = /^generator_list\.randn_tensor\.(\d+)x(.+)$/.exec(key);
    if (key === 'multinomial_noreplace_input') weights();
    else if (layerKey)
      outputs[key] = layer(new Generator(seed), layerKey[2], layerKey[3].split('_').map(Number))[layerKey[4]];
    else if (list) outputs[key] = onePerSample(seed, Number(list[1]), shapeOf(list[2]));
    else if (sequence) outputs[key] = draw(stream(sequence[1]), sequence[2], weights);
    else outputs[key] = draw(new Generator(seed), key, weights);
  }
  return outputs;
}

/** diffusers' randn_tensor with a list of generators: a sample from each; their seeds stay below 2^31. */
function onePerSample(seed: number, count: number, shape: Shape): NdArray {
  const samples = Array.from({ length: count }, (_, i) => [
    ...new Generator((seed % 2 ** 31) + i).randn([1, ...shape]).data,
  ]);
  return ndarray(samples.flat(), [count, ...shape]);
}

export const adapters: Readonly<Record<string, Adapter>> = { 'torch CPU generator (mt19937)': cpuGenerator };
