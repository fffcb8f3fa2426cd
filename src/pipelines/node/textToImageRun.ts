import { join } from 'node:path';
import type { z } from 'zod';
import { type NdArray, ndarray } from '../../array/index.js';
import { indexBatches } from '../../data/index.js';
import { type CaptionFolder, openCaptionFolder } from '../../data/node/index.js';
import { fingerprint, type RowFolder, writeSafetensors } from '../../io/node/index.js';
import { Lora } from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { type LearningBatch, LearningSession } from '../../training/index.js';
import { type LearningEvent, RunFolder } from '../../training/node/index.js';
import { objectiveFor, textToImageLearner, variablesOf } from '../textToImageLearner.js';
import {
  type TextToImageTraining,
  type TextToImageTrainingOptions,
  textToImageTraining,
} from '../textToImageTraining.js';
import { cachedPictures, cachedTexts } from './textToImageCache.js';
import { openSystem, partOf, type TextToImageSystem } from './textToImageSystem.js';

/** The file of a trained LoRA, as diffusers calls it. */
export const loraFile = 'pytorch_lora_weights.safetensors';

/**
 * The training of a text-to-image system in a folder: see {@link RunFolder}. The weights for use are a whole system in
 * diffusers' layout, or `pytorch_lora_weights.safetensors`, or `controlnet/`. What the autoencoder and a fixed text
 * encoder say of the data is computed once, and kept in `cache/`.
 */
export class TextToImageRun {
  readonly session: LearningSession;
  /** Is told how far the caches are, which are made before the first step. */
  onPreparing?: (what: 'pictures' | 'texts', done: number, total: number) => void;
  /** Is told of pictures that cannot be read and are left out. */
  onSkipped?: (reasons: readonly string[]) => void;

  private constructor(
    private readonly files: RunFolder,
    readonly config: TextToImageTraining,
    readonly data: CaptionFolder,
    readonly system: TextToImageSystem,
    empty: Readonly<Record<string, NdArray>>,
  ) {
    const { trained, sampler } = system;
    const { minSnrGamma, timestepDensity: density, flowWeighting: weighting, preconditionOutputs } = config;
    const objective = objectiveFor(sampler, { minSnrGamma, density, weighting, preconditionOutputs });
    const { promptDropout } = config;
    this.session = new LearningSession(
      (rng) => textToImageLearner({ ...system, objective, empty, promptDropout }, rng),
      config,
      variablesOf(trained),
    );
  }

  get folder(): string {
    return this.files.path;
  }

  /** A new run; its folder is made by {@link run}. @throws Error that names the setting, file or part at fault. */
  static async create(options: TextToImageTrainingOptions, folder: string): Promise<TextToImageRun> {
    const config = textToImageTraining.parse(options);
    checkSettings(config);
    const files = new RunFolder(folder);
    await files.checkVacant();
    const { model } = config;
    return TextToImageRun.open(
      files,
      model === undefined ? config : { ...config, fingerprint: await fingerprint(model) },
    );
  }

  /**
   * Continues a run from its last checkpoint.
   * @param changes `steps` is the new total.
   * @throws Error when there is no run, it is damaged (named), or the model that it began with is another one now.
   */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<TextToImageRun> {
    const files = new RunFolder(folder);
    const config = await files.settings(textToImageTraining as z.ZodType<TextToImageTraining>);
    if (config.model !== undefined && (await fingerprint(config.model)) !== config.fingerprint)
      throw new Error(`${config.model}: not the model that ${folder} began with: its files have changed`);
    const run = await TextToImageRun.open(files, { ...config, ...changes });
    await files.restore(run.session, run.product);
    return run;
  }

  private static async open(files: RunFolder, config: TextToImageTraining): Promise<TextToImageRun> {
    const data = await openCaptionFolder(config.data, { skipCorrupt: config.skipCorrupt });
    indexBatches(config.data, data.pictures.length, { batch: config.batch }).next(); // too few are an error before all else
    const captions = data.pictures.map(({ caption }) => caption);
    const system = await openSystem(config, captions);
    const empty = await system.encode([''], { device: config.device, threads: config.threads });
    return new TextToImageRun(files, config, data, system, empty);
  }

  /** What of the run's files is there for use, by name. */
  get product(): string {
    const { lora, controlnet } = this.system.trained;
    return lora ? loraFile : controlnet ? 'controlnet' : 'model_index.json';
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * @throws Error when pictures cannot be read (named) or another process trains this run; DivergedError; AbortError
   * while the caches are made.
   */
  run(signal?: AbortSignal): AsyncGenerator<LearningEvent, void, undefined> {
    const { session, config, system } = this;
    let cached: readonly RowFolder[] = [];
    const batches = async () => {
      const { rows, texts, textOf } = await this.prepare(signal);
      cached = [rows, texts];
      const { batch, seed } = config;
      return cachedBatches(rows, texts, textOf, { name: config.data, batch, seed, position: session.position });
    };
    const plan = {
      session,
      settings: config,
      batches,
      write: (place: string) => this.write(place),
      begin: system.writeFixed,
    };
    const events = this.files.train(plan, signal);
    return (async function* () {
      try {
        yield* events;
      } finally {
        for (const rows of cached) await rows.close();
      }
    })();
  }

  private async prepare(signal?: AbortSignal) {
    const { config, system, data } = this;
    const { device, threads, skipCorrupt } = config;
    const compile = { device, threads };
    const place = join(this.folder, 'cache');
    const { rows, pictures, skipped } = await cachedPictures(place, data.pictures, {
      vae: system.vae,
      vaeKey: system.vaeKey,
      size: system.size,
      hint: config.controlnet ? config.hint : undefined,
      timeIds: system.timed,
      skipCorrupt,
      compile,
      signal,
      onProgress: (done, total) => this.onPreparing?.('pictures', done, total),
    });
    if (skipped.length > 0) this.onSkipped?.(skipped);
    const captions = [...new Set(pictures.map(({ caption }) => caption))];
    const numbers = new Map(captions.map((caption, i) => [caption, i]));
    const texts = await cachedTexts(place, captions, {
      key: system.textKey,
      encode: (some) => system.encode(some, compile),
      signal,
      onProgress: (done, total) => this.onPreparing?.('texts', done, total),
    });
    return { rows, texts, textOf: pictures.map(({ caption }) => numbers.get(caption)!) };
  }

  private async write(folder: string): Promise<void> {
    const { config, system, session } = this;
    const { lora, ...whole } = system.trained;
    const state = [...(await session.averagedState())];
    const weightsOf = (part: string) =>
      new Map(state.flatMap(([name, w]) => (name.startsWith(`${part}.`) ? [[name.slice(part.length + 1), w]] : [])));
    if (lora) {
      const { loraTargets: targets } = config;
      const options = {
        rank: lora.rank,
        alpha: lora.alpha,
        targets: targets === undefined ? undefined : new RegExp(targets),
      };
      const twin = new Lora(system.model, options, new Generator(0));
      twin.loadStateDict(weightsOf('lora'));
      const tensors = await twin.toTensors(partOf(system.model));
      await writeSafetensors(join(folder, loraFile), tensors, { format: 'pt' });
    }
    for (const [part, module] of Object.entries(whole))
      await saveModel(join(folder, part), module, { weights: weightsOf(part) });
    if (folder === this.folder && this.product === 'model_index.json') await system.writeIndex(folder);
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** Batches as the learner takes them. */
async function* cachedBatches(
  pictures: RowFolder,
  texts: RowFolder,
  textOf: readonly number[],
  { name, ...options }: Parameters<typeof indexBatches>[2] & { readonly name: string },
): AsyncGenerator<LearningBatch, void, undefined> {
  for (const { indices, next } of indexBatches(name, textOf.length, options)) {
    const { moments, hint, timeIds } = await pictures.rows(indices);
    const told = await texts.rows(Array.from(indices, (i) => textOf[i]));
    const shown = { ...(hint && { hint: toUnit(hint) }), ...(timeIds && { timeIds }) };
    yield { arrays: { moments, ...told, ...shown }, next };
  }
}

const toUnit = ({ data, shape }: NdArray): NdArray<'float32'> =>
  ndarray(
    Float32Array.from(data as Uint8Array, (level) => level / 255),
    shape,
  );

/** Settings that say nothing beside others. @throws TypeError that names them. */
function checkSettings(config: TextToImageTraining): void {
  const { model, vae, loraRank, loraAlpha, loraTargets, controlnet } = config;
  const fail = (what: string): never => {
    throw new TypeError(what);
  };
  if (model === undefined && vae === undefined)
    fail('model: expected a folder to begin with, or, to train from scratch, an autoencoder (vae)');
  if (model !== undefined && vae !== undefined) fail('vae: the model has one of its own');
  if (loraRank !== undefined && controlnet) fail('loraRank: a LoRA and a ControlNet are trained one at a time');
  if (loraRank === undefined && (loraAlpha !== undefined || loraTargets !== undefined))
    fail('loraAlpha, loraTargets: need a loraRank');
  if (model === undefined && (loraRank !== undefined || controlnet))
    fail(`${controlnet ? 'controlnet' : 'loraRank'}: needs a model to begin with`);
  try {
    if (loraTargets !== undefined) new RegExp(loraTargets);
  } catch (cause) {
    throw new TypeError(`loraTargets: ${(cause as Error).message}`, { cause });
  }
}
