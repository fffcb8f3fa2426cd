import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type NdArray, ndarray } from '../../array/index.js';
import { indexBatches } from '../../data/index.js';
import { cfg, unguided } from '../../guidance/index.js';
import { pathExists, readJson, readSafetensors, writeSafetensors } from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { type LearningBatch, LearningSession, noisyImageLearner, rectifiedFlow } from '../../training/index.js';
import { FolderRun, type RunFolder, writePipelineFolder } from '../../training/node/index.js';
import { FlowOnPath } from '../flowOnPath.js';
import { drawPairs, type FlowPairs, pairsAt } from '../reflow.js';
import { evenEuler, pairSampler, type ReflowTraining, reflowTraining } from '../reflowTraining.js';
import { ClassConditionalPipeline } from './classConditional.js';

/** Pairs in one file of the cache. */
const SHARD = 256;

type LabelledPairs = FlowPairs & { readonly labels: readonly number[] };

/**
 * Reflow in a folder (Liu et al. 2023), see {@link RunFolder}: a teacher's flow is solved from noise once for each of a
 * number of pairs, kept in `cache/`, and a model that begins with the teacher's weights learns the straight lines between
 * them. The pairs are files of their own, written aside and renamed: what a stopped run has drawn is not drawn again.
 */
export class ReflowRun extends FolderRun<ReflowTraining> {
  static readonly settings = reflowTraining;
  static readonly source = ({ teacher }: ReflowTraining): string => teacher;
  protected readonly product = 'model_index.json';
  /** Is told how many pairs there are, which are made before the first step. */
  onPreparing?: (done: number, total: number) => void;

  private constructor(
    files: RunFolder,
    config: ReflowTraining,
    private readonly teacher: ClassConditionalPipeline,
    private readonly student: ClassConditionalPipeline,
  ) {
    const objective = rectifiedFlow({ density: config.timestepDensity });
    const { model } = student;
    const learner = (rng: Generator) => noisyImageLearner({ model, objective, rng });
    super(files, config, new LearningSession(learner, config, model.namedVariables()));
  }

  get model(): ClassConditionalPipeline['model'] {
    return this.student.model;
  }

  /** What a run's pictures are compared with is what the teacher was trained on, unless it is said. */
  static async begin(config: ReflowTraining): Promise<ReflowTraining> {
    const { data, size } = await dataOf(config.teacher);
    return { ...config, data: config.data ?? data, size: config.size ?? size };
  }

  static async open(files: RunFolder, config: ReflowTraining): Promise<ReflowRun> {
    const [teacher, student] = [
      await ClassConditionalPipeline.fromPretrained(config.teacher),
      await ClassConditionalPipeline.fromPretrained(config.teacher),
    ];
    checkTeacher(config, teacher);
    return new ReflowRun(files, config, teacher, student);
  }

  /** Draws the pairs that are not there yet. @throws AbortError. */
  protected async batches(signal?: AbortSignal): Promise<AsyncIterable<LearningBatch>> {
    const { batch, seed } = this.config;
    const pairs = await this.pairs(signal);
    return pairBatches(pairs, { name: 'pairs', batch, seed, position: this.session.position });
  }

  /** All pairs, those that are in the cache read from there. */
  private async pairs(signal?: AbortSignal): Promise<LabelledPairs> {
    const { pairs: total } = this.config;
    const place = join(this.folder, 'cache', `pairs-${this.key()}`);
    await mkdir(place, { recursive: true });
    const shards: LabelledPairs[] = [];
    for (let begin = 0; begin < total; begin += SHARD) {
      signal?.throwIfAborted();
      const path = join(place, `${String(begin / SHARD).padStart(5, '0')}.safetensors`);
      if (!(await pathExists(path))) await this.writeShard(path, begin / SHARD, signal);
      shards.push(await readShard(path));
      this.onPreparing?.(Math.min(total, begin + SHARD), total);
    }
    const joined = (name: 'noise' | 'samples') =>
      joinedRows(
        shards.map((shard) => shard[name]),
        total,
      );
    return {
      noise: joined('noise'),
      samples: joined('samples'),
      labels: shards.flatMap(({ labels }) => labels).slice(0, total),
    };
  }

  /** What the pairs depend on. */
  private key(): string {
    const { fingerprint, seed, pairSteps, pairSampler, pairGuidance, conditionDropout } = this.config;
    const content = [fingerprint, seed, pairSteps, pairSampler, pairGuidance, conditionDropout];
    return createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16);
  }

  private async writeShard(path: string, shard: number, signal?: AbortSignal): Promise<void> {
    const { config, teacher } = this;
    const { seed, pairSteps, pairGuidance, conditionDropout, device, threads } = config;
    // A generator of its own for each file: any of them can be made without the others.
    const rng = new Generator((Math.imul(seed, 0x9e3779b1) ^ Math.imul(shard + 1, 0xc2b2ae35)) >>> 0);
    const { nullClass = 0 } = teacher.model;
    const dropped = rng.rand([SHARD]).data;
    const labels = Array.from(dropped, (u, i) => (u < conditionDropout ? nullClass : i % Math.max(1, nullClass)));
    const { noise, samples } = await drawPairs({
      model: teacher.model,
      sampler: pairSampler(config.pairSampler),
      steps: pairSteps,
      labels,
      seed: rng,
      guidance: pairGuidance === 1 ? unguided() : cfg(pairGuidance),
      knowsNullClass: teacher.knowsNullClass,
      compile: { device, threads },
      signal,
    });
    await writeSafetensors(path, { noise, samples, labels: ndarray(labels, [SHARD], 'int32') });
  }

  protected async write(folder: string): Promise<void> {
    const { session, student } = this;
    await writePipelineFolder(folder, {
      model: student.model,
      weights: await session.averagedState(),
      scheduler: evenEuler().toConfig(),
      classNames: student.classNames,
      coupled: true,
    });
  }
}

/** @throws Error for a teacher whose flow cannot be straightened, or that lacks what the settings ask for. */
function checkTeacher({ teacher, pairGuidance, conditionDropout }: ReflowTraining, opened: ClassConditionalPipeline) {
  const { model, sampler, knowsNullClass } = opened;
  if (sampler.predictionType !== 'flow')
    throw new Error(
      `${teacher} predicts ${sampler.predictionType}: reflow begins with a model trained with --predict flow`,
    );
  if (opened.latents) throw new Error(`${teacher} is a model of latents: reflow begins with a model of images`);
  if (model instanceof FlowOnPath)
    throw new Error(`${teacher} was trained on another path: reflow begins with one trained with --path cond-ot`);
  const wantsNull = conditionDropout > 0 || pairGuidance !== 1;
  if (wantsNull && (model.nullClass === undefined || !knowsNullClass))
    throw new Error(
      `${teacher} was trained without dropping classes: leave out ${pairGuidance !== 1 ? 'pairGuidance' : 'conditionDropout'}`,
    );
}

async function* pairBatches(
  pairs: LabelledPairs,
  { name, ...options }: Parameters<typeof indexBatches>[2] & { readonly name: string },
): AsyncGenerator<LearningBatch, void, undefined> {
  for (const { indices, next } of indexBatches(name, pairs.labels.length, options)) {
    const { noise, samples } = pairsAt(pairs, indices);
    const labels = ndarray(
      Array.from(indices, (i) => pairs.labels[i]),
      [indices.length],
      'int32',
    );
    yield { arrays: { images: samples, labels, noise }, next };
  }
}

async function readShard(path: string): Promise<LabelledPairs> {
  const { tensors } = await readSafetensors(path);
  const part = (name: string): NdArray => {
    const found = tensors.get(name);
    if (!found) throw new Error(`${path}: no '${name}' in it: remove the file`);
    return found;
  };
  const [noise, samples] = [part('noise'), part('samples')] as NdArray<'float32'>[];
  return { noise, samples, labels: Array.from(part('labels').data, Number) };
}

/** The first `count` rows of all. */
function joinedRows(parts: readonly NdArray<'float32'>[], count: number): NdArray<'float32'> {
  const shape = parts[0].shape.slice(1);
  const size = shape.reduce((a, b) => a * b, 1);
  const data = new Float32Array(count * size);
  let at = 0;
  for (const part of parts) {
    data.set(part.data.subarray(0, data.length - at), at);
    at += part.data.length;
  }
  return ndarray(data, [count, ...shape]);
}

const runData = z.looseObject({ data: z.string().optional(), size: z.number().optional() });

async function dataOf(run: string): Promise<{ data?: string; size?: number }> {
  const path = join(run, 'run.json');
  return (await pathExists(path)) ? readJson(path, runData) : {};
}
