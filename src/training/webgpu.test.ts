import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { DiT } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type Device, deviceProblem } from '../runtime/index.js';
import { trainConfig } from './config.js';
import { TrainingSession } from './session.js';

const problem = await deviceProblem('webgpu');

const size = { sampleSize: 8, inChannels: 1, numEmbedsAdaNorm: 4, numLayers: 2 };
const narrow = { patchSize: 2, numAttentionHeads: 2, attentionHeadDim: 16 };

/** Losses and gradient norms of a few steps, and the state after them. */
async function train(device: Device, steps: number) {
  const model = new DiT({ ...size, ...narrow }, new Generator(0));
  const options = { model: 'DiTTransformer2DModel', data: 'random', steps, batch: 4, warmup: 0, learningRate: 1e-3 };
  const session = new TrainingSession(model, trainConfig.parse({ ...options, clipNorm: 1, device }));
  const rng = new Generator(1);
  async function* batches() {
    for (let index = 0; ; index += 4) {
      const labels = ndarray([0, 1, 2, 3], [4], 'int32');
      yield { images: rng.randn([4, 1, 8, 8]), labels, indices: Int32Array.of(0, 1, 2, 3), next: { epoch: 0, index } };
    }
  }
  const numbers: number[] = [];
  for await (const { loss, gradientNorm } of session.run(batches())) numbers.push(loss, gradientNorm);
  return { numbers, model, session };
}

describe.skipIf(problem)(`on WebGPU${problem ? `, skipped: ${problem}` : ''}`, { timeout: 240_000 }, () => {
  it('a DiT trains as on the CPU, and its state is fetched for a checkpoint', async () => {
    const [cpu, gpu] = [await train('cpu', 4), await train('webgpu', 4)];
    for (const [i, number] of cpu.numbers.entries()) expect(gpu.numbers[i] / number).toBeCloseTo(1, 4);
    expect(() => gpu.model.stateDict()).toThrow('its value is on the GPU; call await read() first');
    const [expected, state] = [await cpu.session.state(), await gpu.session.state()];
    expect([...state.keys()]).toEqual([...expected.keys()]);
    for (const [name, { shape, data }] of state) {
      expect(shape).toEqual(expected.get(name)!.shape);
      for (const [i, value] of data.entries()) {
        const difference = Math.abs(Number(value) - Number(expected.get(name)!.data[i]));
        if (!(difference < 2e-5)) throw new Error(`${name}[${i}] differs by ${difference}`);
      }
    }
    expect(gpu.model.stateDict().size).toBe(gpu.model.namedVariables().size);
    await Promise.all([cpu.session.release(), gpu.session.release()]);
  });
});
