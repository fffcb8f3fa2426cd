import { join } from 'node:path';
import { type NdArray, ndarray } from '../../array/index.js';
import { indexBatches } from '../../data/index.js';
import { type CaptionFolder, openCaptionFolder } from '../../data/node/index.js';
import { type RowFolder, writeSafetensors } from '../../io/node/index.js';
import { Lora } from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { type LearningBatch, LearningSession } from '../../training/index.js';
import { FolderRun, type LearningEvent, type RunFolder } from '../../training/node/index.js';
import { objectiveFor, textToImageLearner, variablesOf } from '../textToImageLearner.js';
import { type TextToImageTraining, textToImageTraining } from '../textToImageTraining.js';
import { cachedPictures, cachedTexts } from './textToImageCache.js';
import { openSystem, partOf, type TextToImageSystem } from './textToImageSystem.js';

/** The file of a trained LoRA, as diffusers calls it. */
export const loraFile = 'pytorch_lora_weights.safetensors';

/**
 * The training of a text-to-image system in a folder: see {@link RunFolder}. The weights for use are a whole system in
 * diffusers' layout, or `pytorch_lora_weights.safetensors`, or `controlnet/`. What the autoencoder and a fixed text
 * encoder say of the data is computed once, and kept in `cache/`.
 */
export class TextToImageRun extends FolderRun<TextToImageTraining> {
  static readonly settings = textToImageTraining;
  static readonly source = ({ model }: TextToImageTraining): string | undefined => model;
  /** Is told how far the caches are, which are made before the first step. */
  onPreparing?: (what: 'pictures' | 'texts', done: number, total: number) => void;
  /** Is told of pictures that cannot be read and are left out. */
  onSkipped?: (reasons: readonly string[]) => void;
  private cached: readonly RowFolder[] = [];

  private constructor(
    files: RunFolder,
    config: TextToImageTraining,
    readonly data: CaptionFolder,
    readonly system: TextToImageSystem,
    empty: Readonly<Record<string, NdArray>>,
  ) {
    const { trained, sampler } = system;
    const { minSnrGamma, timestepDensity: density, flowWeighting: weighting, preconditionOutputs } = config;
    const objective = objectiveFor(sampler, { minSnrGamma, density, weighting, preconditionOutputs });
    const { promptDropout } = config;
    const learner = (rng: Generator) => textToImageLearner({ ...system, objective, empty, promptDropout }, rng);
    super(files, config, new LearningSession(learner, config, variablesOf(trained)));
  }

  static begin(config: TextToImageTraining): TextToImageTraining {
    checkSettings(config);
    return config;
  }

  static async open(files: RunFolder, config: TextToImageTraining): Promise<TextToImageRun> {
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

  override async *run(signal?: AbortSignal): AsyncGenerator<LearningEvent, void, undefined> {
    try {
      yield* super.run(signal);
    } finally {
      for (const rows of this.cached) await rows.close();
    }
  }

  protected async batches(signal?: AbortSignal): Promise<AsyncIterable<LearningBatch>> {
    const { batch, seed, data: name } = this.config;
    const { rows, texts, textOf } = await this.prepare(signal);
    this.cached = [rows, texts];
    return cachedBatches(rows, texts, textOf, { name, batch, seed, position: this.session.position });
  }

  protected override async begin(folder: string): Promise<void> {
    await this.system.writeFixed(folder);
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

  protected async write(folder: string): Promise<void> {
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
