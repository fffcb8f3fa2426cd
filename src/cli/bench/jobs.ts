import { type NdArray, ndarray, zeros } from '../../array/index.js';
import type { Batch } from '../../data/index.js';
import { type Denoiser, denoiserClass } from '../../models/index.js';
import { inTraining } from '../../nn/index.js';
import { predict, sample } from '../../pipelines/index.js';
import { Generator } from '../../random/index.js';
import { ddim } from '../../samplers/index.js';
import { compile, flops, gradients, type Tensor, variable } from '../../tensor/index.js';
import { TrainingSession, trainConfig } from '../../training/index.js';
import { parseGuidance } from '../guidance.js';
import { type Sd15JobName, sd15Flops, sd15Job, sd15JobNames } from './sd15.js';

export const jobNames = ['dit-train', 'dit-forward', 'unet-train', 'unet-forward'] as const;
export type JobName = (typeof jobNames)[number];

/** What is measured: a model of the size that the peers have by default, and what differs from it. */
export interface JobSpec {
  readonly name: JobName | Sd15JobName | 'dit-sample' | 'sgemm';
  readonly batch: number;
  readonly threads: number;
  /** Pixels of a side; default 28. */
  readonly size?: number;
  /** DiT: width of a token; UNet: channels of the first stage. */
  readonly width?: number;
  /** DiT: blocks; UNet: residual blocks of a stage. */
  readonly depth?: number;
  /** Of decoding: pixels of a tile's side; default: no tiles. */
  readonly tile?: number;
  /** Of Stable Diffusion's: its folder. */
  readonly model?: string;
  /** Of Stable Diffusion's: round large weights to 8 bits. */
  readonly weights?: 'int8';
  /** Of `dit-sample`, as `--guidance` of sample takes it. */
  readonly guidance?: string;
}

/** Something that can be done again and again. */
export interface Job {
  readonly parameters: number;
  step(): Promise<void>;
}

const classes = 10;

function modelOf({ name, size = 28, width, depth }: JobSpec): Denoiser {
  const kind = denoiserClass(name.split('-')[0]);
  const dit = { ...(width && { attentionHeadDim: width / 3 }), ...(depth && { numLayers: depth }) };
  const unet = {
    ...(width && { blockOutChannels: [width, 2 * width, 2 * width] }),
    ...(depth && { layersPerBlock: depth }),
  };
  const config = kind.name === 'dit' ? { ...kind.presets.xs, ...dit } : { ...kind.presets.s, ...unet };
  return kind.create(config, { channels: 1, size, classes }, new Generator(0));
}

export const isSd15 = (name: string): name is Sd15JobName => (sd15JobNames as readonly string[]).includes(name);

/** Our side of a job: the training step of a user's run, or the forward pass as sampling compiles it. */
export async function createJob(spec: JobSpec): Promise<Job> {
  if (spec.name === 'sgemm') return sgemm(spec);
  if (isSd15(spec.name)) return sd15Job(spec);
  const model = modelOf(spec);
  const parameters = model.parameterCount();
  if (spec.name === 'dit-sample') return { parameters, step: sampling(model, spec) };
  return { parameters, step: spec.name.endsWith('train') ? training(model, spec) : forward(model, spec) };
}

const picturesOf = ({ batch, size = 28 }: JobSpec): NdArray<'float32'> => new Generator(1).rand([batch, 1, size, size]);
const labelsOf = (batch: number) => Array.from({ length: batch }, (_, i) => i % classes);

function training(model: Denoiser, spec: JobSpec): () => Promise<void> {
  const { batch, threads } = spec;
  const config = trainConfig.parse({ model: 'bench', data: 'bench', batch, threads, steps: Number.MAX_SAFE_INTEGER });
  const repeated: Batch = {
    images: picturesOf(spec),
    labels: ndarray(labelsOf(batch), [batch], 'int32'),
    indices: new Int32Array(batch),
    next: { epoch: 0, index: 0 },
  };
  async function* endless() {
    for (;;) yield repeated;
  }
  const events = new TrainingSession(model, config).run(endless());
  return async () => {
    await events.next();
  };
}

function forward(model: Denoiser, spec: JobSpec): () => Promise<void> {
  const run = compile((x: Tensor, t: Tensor, y: Tensor) => predict(model, x, t, y), {
    freeze: true,
    threads: spec.threads,
  });
  const [x, t] = [picturesOf(spec), ndarray(new Float32Array(spec.batch).fill(500))];
  const y = ndarray(labelsOf(spec.batch), [spec.batch], 'int64');
  return async () => {
    await run(x, t, y);
  };
}

/** One step after the other of a long sampling run. */
function sampling(model: Denoiser, { batch, threads, guidance = 'none' }: JobSpec): () => Promise<void> {
  const classes = labelsOf(batch);
  const begin = () =>
    sample({
      model,
      sampler: ddim(),
      plan: { steps: 1000 },
      classes,
      guidance: parseGuidance(guidance),
      compile: { threads },
    });
  let steps = begin();
  return async () => {
    if (!(await steps.next()).done) return;
    steps = begin();
    await steps.next();
  };
}

const side = 1024;
/** Operations of one `sgemm` step: what the machine can do at best, the yardstick of the others. */
export const sgemmFlops = 2 * side ** 3;

function sgemm({ threads }: JobSpec): Job {
  const [a, b] = [0, 1].map((seed) => new Generator(seed).rand([side, side]));
  const weight = variable(b);
  const run = compile((x: Tensor) => x.matmul(weight), { freeze: true, threads });
  return {
    parameters: 0,
    async step() {
      await run(a);
    },
  };
}

/** Operations of one step, counted from the graph: products and convolutions, forward and backward. */
export async function jobFlops(spec: JobSpec): Promise<number> {
  if (spec.name === 'sgemm') return sgemmFlops;
  if (isSd15(spec.name)) return sd15Flops(spec);
  const model = modelOf(spec);
  const { batch, size = 28 } = spec;
  const inputs = [zeros([batch, 1, size, size]), zeros([batch]), zeros([batch], 'int64')].map((x) => variable(x));
  const predicted = () => model.forward(inputs[0], inputs[1], inputs[2]);
  if (spec.name.endsWith('forward')) return flops([predicted()]);
  return inTraining(() => flops(gradients(predicted().square().mean(), model.parameters())), new Generator(0));
}
