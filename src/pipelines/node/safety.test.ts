import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ndarray } from '../../array/index.js';
import { ClipImageProcessor, ClipTokenizer } from '../../io/index.js';
import { writeFolderAtomic, writeJson } from '../../io/node/index.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  SafetyChecker,
  type SafetyVerdict,
  UNet2DCondition,
} from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { ddim } from '../../samplers/index.js';
import { loadTextToImage, saveTextToImage } from './index.js';

const rng = new Generator(0);
const tower = { hiddenSize: 8, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, projectionDim: 4 };
let folder: string;

/** A model whose checker finds any picture unsafe. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const vocab = { 'a</w>': 0, '<|startoftext|>': 1, '<|endoftext|>': 2 };
  const blocks = { blockOutChannels: [8], normNumGroups: 4 };
  await saveTextToImage(folder, {
    model: new UNet2DCondition(
      {
        ...blocks,
        sampleSize: 8,
        downBlockTypes: ['CrossAttnDownBlock2D'],
        upBlockTypes: ['CrossAttnUpBlock2D'],
        layersPerBlock: 1,
        crossAttentionDim: 8,
        attentionHeadDim: 2,
      },
      rng,
    ),
    vae: new AutoencoderKL(
      { ...blocks, downBlockTypes: ['DownEncoderBlock2D'], upBlockTypes: ['UpDecoderBlock2D'] },
      rng,
    ),
    textEncoder: new CLIPTextModel({ ...tower, vocabSize: 3, maxPositionEmbeddings: 4, eosTokenId: 2 }, rng),
    tokenizer: new ClipTokenizer({
      'vocab.json': JSON.stringify(vocab),
      'merges.txt': '#version: 0.2',
      'tokenizer_config.json': '{"model_max_length": 4}',
    }),
    sampler: ddim(),
  });
  const checker = new SafetyChecker({ projectionDim: 4, visionConfig: { ...tower, imageSize: 8, patchSize: 4 } }, rng);
  checker.conceptEmbedsWeights.set(ndarray(new Float32Array(17).fill(-2)));
  await saveModel(join(folder, 'safety_checker'), checker);
  await writeFolderAtomic(join(folder, 'feature_extractor'), (aside) =>
    writeJson(join(aside, 'preprocessor_config.json'), new ClipImageProcessor({ size: 8, cropSize: 8 }).toJson()),
  );
  const path = join(folder, 'model_index.json');
  const index = JSON.parse(await readFile(path, 'utf8'));
  const parts = {
    safety_checker: ['stable_diffusion', SafetyChecker.className],
    feature_extractor: ['transformers', 'CLIPImageProcessor'],
  };
  await writeFile(path, JSON.stringify({ ...index, ...parts }));
});
afterAll(() => rm(folder, { recursive: true }));

describe("a folder's safety checker", () => {
  const request = { prompt: 'a', steps: 1, seed: 1, imagesPerPrompt: 2 };

  it('blackens what it finds unsafe, and says so', async () => {
    const pipeline = await loadTextToImage(folder);
    let judged: readonly SafetyVerdict[] = [];
    const onVerdicts = (verdicts: readonly SafetyVerdict[]) => {
      judged = verdicts;
    };
    expect(new Set((await pipeline.images({ ...request, onVerdicts })).data)).toEqual(new Set([-1]));
    expect(judged.map(({ unsafe }) => unsafe)).toEqual([true, true]);
    expect(new Set((await pipeline.images({ ...request, safetyChecker: false })).data).size).toBeGreaterThan(99);
  });

  it('is left out only when asked to, and missed when it is not there', async () => {
    await rm(join(folder, 'safety_checker'), { recursive: true });
    await expect(loadTextToImage(folder)).rejects.toThrow(/safety_checker/);
    const { parts } = await loadTextToImage(folder, { safetyChecker: false });
    expect(parts.safety).toBeUndefined();
  });
});
