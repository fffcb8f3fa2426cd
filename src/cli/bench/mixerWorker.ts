import { createInterface } from 'node:readline';
import { ndarray } from '../../array/index.js';
import { Attention, createTokenMixer } from '../../nn/index.js';
import { Generator } from '../../random/index.js';
import { compile, gradients, type Tensor } from '../../tensor/index.js';
import type { MixerSpec } from './mixers.js';

// One mixer at one length, in a process of its own: a forward and backward pass a step. The protocol is worker.ts's.
const { mixer, length, width, threads } = JSON.parse(process.argv[2]) as MixerSpec;
const rng = new Generator(0);
const heads = width / 32;
const module =
  mixer === 'softmax'
    ? new Attention({ queryDim: width, heads, dimHead: 32, bias: true }, rng)
    : createTokenMixer(mixer, { dim: width, heads }, rng);
const input = rng.randn([1, length, width]);
const step = compile(
  (x: Tensor) => {
    const loss = module.forward(x).square().mean();
    const [ofInput, ...slopes] = gradients(loss, [x, ...module.parameters()]);
    return { loss, ofInput: ofInput.sum(), slopes: slopes.map((slope) => slope.sum()) };
  },
  { threads },
);
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
const timed = async (): Promise<number> => {
  const began = performance.now();
  await step(ndarray(input.data, input.shape));
  return performance.now() - began;
};
await timed();
say({ ready: true, parameters: module.parameterCount() });
for await (const line of createInterface({ input: process.stdin })) {
  const count = Number(/^round (\d+)$/.exec(line)?.[1]);
  if (!count) throw new Error(`bench mixers: expected "round N", got '${line}'`);
  const times: number[] = [];
  for (let i = 0; i < count; i++) times.push(await timed());
  say({ times_ms: times, peak_rss_kb: process.resourceUsage().maxRSS });
}
process.exit();
