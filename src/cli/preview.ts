import { cfg, unguided } from '../guidance/index.js';
import { imageGrid } from '../io/index.js';
import { savePng } from '../io/node/index.js';
import { denoiserClass } from '../models/index.js';
import { asRectifiedFlow, LatentSpace, sampleImages } from '../pipelines/index.js';
import { Generator } from '../random/index.js';
import { samplerFromConfig } from '../samplers/index.js';
import { samplerConfigOf } from '../training/index.js';
import type { TrainingRun } from '../training/node/index.js';
import { gridScale } from './generate.js';

/** A grid of a run in training, from its averaged weights: a row per class (16 at most), 4 pictures each. */
export async function savePreview(run: TrainingRun, path: string, signal: AbortSignal): Promise<void> {
  const { model, dataset, config } = run;
  const [channels, size] = dataset.shape;
  const format = { channels, size, classes: dataset.classNames.length };
  const twin = denoiserClass(config.model).create(model.config, format, new Generator(0));
  twin.loadStateDict(await run.session.averagedState());
  const names = dataset.classNames.slice(0, 16);
  const images = await sampleImages({
    model: asRectifiedFlow(twin, config),
    sampler: samplerFromConfig(samplerConfigOf(config)),
    plan: { steps: 25 },
    classes: names.flatMap((_, label) => [label, label, label, label]),
    guidance: config.conditionDropout > 0 ? cfg(3) : unguided(),
    seed: config.seed,
    signal,
    compile: { device: config.device, threads: config.threads },
  });
  const compile = { device: config.device, threads: config.threads };
  const pictures = run.vae ? await new LatentSpace(run.vae).decode(images, compile) : images;
  await savePng(path, imageGrid(pictures, 4, { rowLabels: names, scale: gridScale(size) }));
}
