import { join } from 'node:path';
import { readBatch } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { readJson } from '../io/node/index.js';
import { type FlowTrainingConfig, flowLikelihood, flowTraining, inversionError } from '../pipelines/index.js';
import { loadImageFlow } from '../pipelines/node/index.js';
import { type ExitCode, exitCodes } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { duration, type Output } from './output.js';
import { Progress } from './progress.js';

export interface EvalFlowOptions {
  /** Test pictures. */
  readonly samples: number;
  readonly data?: string;
  readonly seed: number;
  readonly solverSteps?: number;
  readonly device: 'cpu' | 'webgpu' | 'cuda';
  readonly threads?: number;
}

/** Pictures that are taken to their latents and back. */
const inverted = 16;

/** `eval` of a flow's run: bits per dimension of test pictures, and how well the flow inverts. */
export async function evaluateFlow(output: Output, options: EvalFlowOptions, run: string): Promise<ExitCode> {
  const { samples, seed, solverSteps, device, threads } = options;
  const flow = await loadImageFlow(join(run, 'flow'), solverSteps);
  const config = await readJson<FlowTrainingConfig>(join(run, 'run.json'), flowTraining);
  const { size, skipCorrupt } = config;
  const data = options.data ?? config.data;
  const open = (split: 'train' | 'test') => openDataset(data, { size, skipCorrupt, split });
  const dataset = await open('test').catch(() => open('train'));
  if (`${dataset.shape}` !== `${flow.config.imageShape}`)
    throw new RangeError(
      `${data}: pictures of ${dataset.shape.join('x')}, ${run} is of ${flow.config.imageShape.join('x')}`,
    );
  const total = Math.min(samples, dataset.length);
  const compile = { device, threads };
  const began = performance.now();
  const progress = new Progress(output, { label: 'measuring', total });
  const { report, error } = await interruptible(async (signal) => {
    const onImages = (done: number) => progress.update(done);
    const report = await flowLikelihood(flow, dataset, { count: total, seed, signal, compile, onImages });
    const first = Int32Array.from({ length: Math.min(inverted, total) }, (_, i) => i);
    const { images } = await readBatch(dataset, first);
    return { report, error: await inversionError(flow, images, { seed, compile, signal }) };
  }).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  output.line(
    `${report.bitsPerDim.toFixed(3)} bits per dimension over ${report.images} pictures of ${dataset.name} (log p(x) ${report.logLikelihood.toFixed(1)} nats), ${duration(seconds)}`,
  );
  output.line(
    `inversion: ${Math.min(inverted, total)} pictures came back to within ${error.largest.toExponential(1)} (mean ${error.mean.toExponential(1)}) of 0..1`,
  );
  if (error.largest > 0.01)
    output.line('not a flow that inverts: its bits per dimension are no likelihood; for ffjord try --solver-steps');
  const settings = { run, data, seed, solverSteps: solverSteps ?? null };
  output.record({ kind: 'likelihood', ...settings, ...report, inversionError: error, seconds });
  return exitCodes.ok;
}
