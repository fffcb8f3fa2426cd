import { expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { checkpoint, compile, gradients, type Tensor } from './index.js';

/** 32 activations of 4 MB in a row, of which the gradient reads all, in 4 sections. */
function layers(x: Tensor, around: (build: () => Tensor) => Tensor): Tensor {
  const section = (y: Tensor) => around(() => range(8).reduce<Tensor>((z) => z.mul(1.5).tanh(), y));
  return range(4).reduce<Tensor>(section, x);
}
const range = (n: number): null[] => Array(n).fill(null);

/** How far the step raises the process's peak, in MB. */
async function growth(around: (build: () => Tensor) => Tensor): Promise<{ megabytes: number; gradient: number }> {
  const step = compile((x: Tensor) => ({ g: gradients(layers(x, around).square().sum(), [x])[0].max() }), {
    threads: 1,
  });
  const before = process.resourceUsage().maxRSS;
  const { g } = await step(ndarray(new Float32Array(2 ** 20).fill(0.5)));
  await step.release();
  return { megabytes: (process.resourceUsage().maxRSS - before) / 1024, gradient: Number(g.data[0]) };
}

// The order matters: a peak only ever rises.
test('a checkpointed section gives the same gradient in less memory', async () => {
  const sections = await growth((build) => checkpoint(build));
  const plain = await growth((build) => build());
  expect(plain.gradient).toBeCloseTo(sections.gradient, 5);
  expect(plain.megabytes).toBeGreaterThan(40);
});
