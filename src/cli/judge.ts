import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { NdArray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { readJson } from '../io/node/index.js';
import { loadClassifier } from '../models/node/index.js';
import type { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import type { CompileOptions } from '../tensor/index.js';
import { type Classified, classify, type ImageQuality, imageQuality } from '../training/index.js';

export interface JudgeOptions {
  /** Folder of the run, which says what it was trained on. */
  readonly run: string;
  readonly pipeline: ClassConditionalPipeline;
  /** Real pictures instead of those. */
  readonly data?: string;
  /** Folder of the classifier whose features and classes count. */
  readonly classifier: string;
  /** How many pictures it will be asked about at a time. */
  readonly samples: number;
  readonly compile: CompileOptions;
}

/** Compares pictures with the real ones that a run was trained on. */
export interface Judge {
  /** Name of the data set. */
  readonly data: string;
  /** How many classes there are. */
  readonly classes: number;
  /** @param images [N, C, H, W] in [-1, 1], made for the classes `labels`. */
  quality(images: NdArray<'float32'>, labels: readonly number[]): Promise<ImageQuality>;
  /** The same of real pictures that were not trained on; undefined where there are none. */
  real(): Promise<{ readonly count: number; readonly quality: ImageQuality } | undefined>;
}

/** @throws Error when data, model and classifier differ in the number of classes. */
export async function openJudge({ run, pipeline, samples, compile, ...options }: JudgeOptions): Promise<Judge> {
  const classifier = await loadClassifier(options.classifier);
  const { name, size } = await dataOf(run, options.data);
  const train = await openDataset(name, { size });
  const classes = train.classNames.length;
  if (pipeline.model.nullClass !== classes || classifier.config.numClasses !== classes)
    throw new Error(
      `${name} has ${classes} classes, the model ${pipeline.model.nullClass ?? 'none'}, the classifier ${classifier.config.numClasses}: all must agree`,
    );
  let known: Promise<Classified> | undefined;
  const reference = () => {
    known ??= classifyDataset(train, Math.max(10_000, samples));
    return known;
  };

  async function classifyDataset(dataset: Dataset, most: number): Promise<Classified & { labels: number[] }> {
    const chosen = new Generator(0).randperm(dataset.length).slice(0, most) as Int32Array;
    async function* read(): AsyncGenerator<NdArray> {
      for (let at = 0; at < chosen.length; at += chunk)
        yield (await readBatch(dataset, chosen.slice(at, at + chunk))).images;
    }
    return { ...(await classify(classifier, read(), compile)), labels: Array.from(chosen, (i) => dataset.label(i)) };
  }

  return {
    data: name,
    classes,
    async quality(images, labels) {
      return imageQuality((await reference()).features, await classify(classifier, chunks(images), compile), labels);
    },
    async real() {
      const test = await openDataset(name, { size, split: 'test' }).catch(() => undefined);
      if (!test) return undefined;
      const held = await classifyDataset(test, samples);
      return { count: held.labels.length, quality: imageQuality((await reference()).features, held, held.labels) };
    },
  };
}

const chunk = 250;

function* chunks({ data, shape: [count, ...shape] }: NdArray<'float32'>): IterableIterator<NdArray> {
  const size = data.length / count;
  for (let at = 0; at < count; at += chunk) {
    const part = data.slice(at * size, Math.min(count, at + chunk) * size);
    yield { dtype: 'float32', shape: [part.length / size, ...shape], data: part };
  }
}

const runData = z.looseObject({ data: z.string(), size: z.number().optional() });

/** What a run was trained on; the shipped checkpoint's folder may lack the note. */
async function dataOf(run: string, asked?: string): Promise<{ name: string; size?: number }> {
  const path = join(run, 'run.json');
  const known = await stat(path).catch(() => undefined);
  const { data: name, size } = known ? await readJson(path, runData) : { data: 'fashion-mnist', size: undefined };
  return { name: asked ?? name, size };
}
