import { dirname, extname } from 'node:path';
import { type Command, Option } from 'commander';
import { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { imageGrid, readPngText, toRasters } from '../io/index.js';
import {
  expandHome,
  fileError,
  fingerprint,
  makeFolder,
  portablePath,
  readBytes,
  readImage,
  readSafetensors,
  savePng,
} from '../io/node/index.js';
import { ControlNet, loraLayers } from '../models/index.js';
import { loadComponent } from '../models/node/index.js';
import type { Control, TextToImage } from '../pipelines/index.js';
import { Pipeline, pipelineKind } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { fetchedFolder } from './openPipeline.js';
import { duration, type Output, shellWord } from './output.js';
import { packageVersion } from './package.js';
import { pictureNote, splitControl, withPaths } from './pictureNote.js';
import { Progress } from './progress.js';
import { fileName, number, parseGuidance, samplerNamed, samplerNameOf, samplerNames, wholeNumber } from './values.js';

/** Everything that a picture follows from: kept in the PNG file, read back by `--from`. */
const recipeSchema = z.object({
  model: z.string(),
  prompt: z.string(),
  negative: z.string().default(''),
  guidance: z.string().default('7.5'),
  sampler: z.enum(samplerNames).optional(),
  steps: z.number().int().positive().default(30),
  seed: z.number().int().min(0).default(0),
  /** Width x height in pixels. */
  size: z.string().optional(),
  images: z.number().int().positive().default(1),
  clipSkip: z.number().int().min(0).optional(),
  image: z.string().optional(),
  strength: z.number().optional(),
  mask: z.string().optional(),
  control: z.array(z.string()).default([]),
  lora: z.array(z.string()).default([]),
  promptSyntax: z.enum(['weighted', 'plain']).default('weighted'),
  /** Bits of the model's large weights. */
  quantize: z.enum(['8']).optional(),
  tokenizer: z.string().optional(),
});
type Recipe = z.output<typeof recipeSchema>;
const savedRecipe = z.object({
  noisewright: z.string(),
  fingerprint: z.string(),
  number: z.number(),
  recipe: recipeSchema,
});

interface Options extends Partial<Omit<z.input<typeof recipeSchema>, 'prompt'>>, ComputeOptions {
  readonly out: string;
  readonly from?: string;
  readonly preview?: string;
  readonly tile?: number | true;
  readonly safetyChecker: boolean;
}

const gathered = (value: string, before: readonly string[] = []): string[] => [...before, value];

export function defineTextToImage(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'generate',
      summary: 'make a picture of a text with a model of the Stable Diffusion family',
      examples: [
        'generate --model ./sd15 "a photo of a cat" --negative "blurry" --guidance cfg=7.5,pag=3 --steps 20 --out cat.png',
        'generate --model ./sd15 "a cat in the snow" --image cat.png --strength 0.6 --out snow.png',
        'generate --model ./sd15 "a hat" --image cat.png --mask head.png --out hat.png',
        'generate --model ./sd15 "a castle" --control ./canny=edges.png:0.8 --lora ink.safetensors:0.7 --out castle.png',
        'generate --model ./sd15 "a castle" --control ./canny=edges.png,to=0.5 --control ./depth=far.png,guess --preview now.png',
        'generate --from cat.png --seed 2 --out another.png',
      ],
    },
    (command) => {
      command
        .argument('[prompt]', 'what to show; with --from, that of the picture')
        .option(
          '--model <source>',
          "a folder in diffusers' layout, the id of one at the hub (owner/name), or a .safetensors file of Stable Diffusion 1",
        )
        .option('--negative <text>', 'what to move away from')
        .option('--guidance <scales>', "default 7.5; combinations as in 'sample', such as cfg=7.5,pag=3")
        .addOption(new Option('--sampler <name>', "default: the model's own").choices(samplerNames))
        .option('--steps <n>', 'default 30', wholeNumber('--steps'))
        .option('--seed <n>', 'default 0', wholeNumber('--seed', 0))
        .option('--size <width>x<height>', "in pixels; default the model's, or the image's")
        .option('--images <n>', 'pictures of the prompt; default 1', wholeNumber('--images'))
        .option('--clip-skip <n>', "leave out the text encoder's last layers", wholeNumber('--clip-skip', 0))
        .option('--image <file>', 'begin with a picture')
        .option(
          '--strength <n>',
          'how much to change it, above 0 to 1; default 0.8, with --mask 1',
          number('--strength'),
        )
        .option('--mask <file>', 'white where the picture is to be painted anew')
        .option(
          '--control <net=file[:scale]>',
          "a ControlNet's folder and what it is shown (the file alone for one that is part of the model), and further ,from=0.2 ,to=0.8 (shares of the steps) or ,guess; may be repeated",
          gathered,
        )
        .option('--lora <file[:weight]>', 'a LoRA in .safetensors; may be repeated', gathered)
        .option(
          '--preview <file>',
          'a .png file that shows after each step what is to come of it',
          fileName('--preview', '.png'),
        )
        .option('--from <file>', 'repeat a picture that generate made; other flags change what they name')
        .option('--out <file>', 'a .png file; several pictures are numbered', fileName('--out', '.png'), 'picture.png')
        .addOption(
          new Option(
            '--prompt-syntax <name>',
            'weighted: (word:1.3) and [word] count more and less; plain: as diffusers reads it',
          ).choices(['weighted', 'plain']),
        )
        .option('--tokenizer <source>', "for a single file, which has none: CLIP's, from a folder or the hub")
        .option('--no-safety-checker', "do not judge pictures by the model's safety checker")
        .addOption(
          new Option('--quantize <bits>', "round the model's large weights: less time and memory, some error").choices([
            '8',
          ]),
        )
        .option(
          '--tile [pixels]',
          "decode in tiles of this side, by default the autoencoder's: less memory",
          wholeNumber('--tile'),
        )
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    run,
  );
}

async function run(output: Output, options: Options, [prompt]: readonly string[]): Promise<ExitCode> {
  const { out, device, threads, from } = options;
  const saved = from === undefined ? undefined : await readRecipe(from);
  const recipe = recipeOf({ ...saved?.recipe, ...(prompt !== undefined && { prompt }) }, options);
  const size = recipe.size === undefined ? undefined : parseSize(recipe.size);
  if (recipe.quantize && device !== 'cpu')
    throw new UsageError(`--quantize: weights in 8 bits need --device cpu, not ${device}`);
  for (const path of [out, options.preview]) if (path !== undefined) await makeFolder(dirname(path)); // not found out after minutes
  const guidance = parseGuidance(recipe.guidance);
  const folder = await fetchedFolder(output, recipe.model);
  const model = await fingerprint(folder);
  if (saved && saved.fingerprint !== model && options.model === undefined)
    output.line(`note: ${recipe.model} is not the model that made ${from}; the picture will differ`);

  const { safetyChecker } = options;
  const { tokenizer } = recipe;
  if (!folder.endsWith('.safetensors') && (await pipelineKind(folder)) === 'class-conditional')
    throw new UsageError(
      `${recipe.model} makes pictures of classes, not of texts: noisewright sample ${shellWord(recipe.model)} --classes all`,
    );
  const pipeline = await Pipeline.fromPretrained(folder, {
    kind: 'text-to-image',
    tokenizer,
    safetyChecker,
    ...(recipe.quantize && { weights: 'int8' }),
  });
  if (options.tile)
    pipeline.latents.use = { tiling: options.tile === true ? true : { tileSampleMinSize: options.tile } };
  await addLoras(pipeline, recipe.lora);
  const pictures = await readPictures(pipeline, recipe, size);
  const sampler = recipe.sampler ? samplerNamed(recipe.sampler, pipeline.parts.sampler) : pipeline.parts.sampler;

  const began = performance.now();
  const progress = new Progress(output, { label: 'denoising', total: recipe.steps });
  const images = await interruptible((signal) =>
    pipeline.images({
      ...pictures,
      prompt: recipe.prompt,
      negativePrompt: recipe.negative,
      guidance,
      sampler,
      steps: recipe.steps,
      seed: recipe.seed,
      imagesPerPrompt: recipe.images,
      clipSkip: recipe.clipSkip,
      promptSyntax: recipe.promptSyntax,
      strength: recipe.strength,
      compile: { device, threads },
      signal,
      onVerdicts: (verdicts) => {
        const count = verdicts.filter(({ unsafe }) => unsafe).length;
        if (count > 0) progress.log(`the safety checker blackened ${count} of ${verdicts.length} pictures`);
      },
      async onStep({ step, total, x0 }) {
        progress.update((step / total) * recipe.steps);
        if (options.preview === undefined || step === total) return;
        const shown = await pipeline.latents.decode(x0 as NdArray<'float32'>, { device, threads });
        await savePng(options.preview, imageGrid(shown, Math.ceil(Math.sqrt(shown.shape[0]))));
      },
    }),
  ).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  const files = await save(images, out, (i) =>
    pictureNote({
      noisewright: packageVersion(),
      fingerprint: model,
      number: i + 1,
      recipe: withPaths(recipe, portablePath),
    }),
  );
  output.line(
    `${files.length === 1 ? 'one picture' : `${files.length} pictures`} in ${duration(seconds)} (${samplerNameOf(sampler)}, ${recipe.steps} steps, guidance ${recipe.guidance}, seed ${recipe.seed})`,
  );
  for (const file of files) output.line(file);
  output.line(`again, with another seed: noisewright generate --from ${shellWord(files[0])} --seed ${recipe.seed + 1}`);
  output.record({ kind: 'images', ...recipe, fingerprint: model, seconds, files });
  return exitCodes.ok;
}

/** The settings of a picture that is to be repeated, under what the flags say. */
function recipeOf(base: Partial<Recipe>, options: Options): Recipe {
  const given = Object.fromEntries(
    Object.keys(recipeSchema.shape).flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])),
  );
  const all = { ...base, ...given };
  if (all.prompt === undefined) throw new UsageError('the prompt is missing: what the picture is to show');
  if (all.model === undefined) throw new UsageError("--model is missing: a folder in diffusers' layout");
  return recipeSchema.parse(all);
}

async function readRecipe(path: string): Promise<z.output<typeof savedRecipe>> {
  try {
    const saved = savedRecipe.parse(JSON.parse(readPngText(await readBytes(path)).noisewright ?? ''));
    return { ...saved, recipe: withPaths(saved.recipe, expandHome) };
  } catch (cause) {
    throw fileError('read', path, new Error('no picture that noisewright generate made', { cause }));
  }
}

/** `512x768`: width and height. @returns [height, width]. */
function parseSize(text: string): readonly [number, number] {
  const [, width, height] = /^(\d+)x(\d+)$/.exec(text) ?? [];
  if (width === undefined) throw new UsageError(`--size: expected <width>x<height> such as 512x768, got '${text}'`);
  return [Number(height), Number(width)];
}

/** `path:0.8` with the number left out: 1. A path may hold colons of its own. */
function withNumber(text: string): readonly [path: string, value: number] {
  const [, path, value] = /^(.*):(-?\d*\.?\d+)$/.exec(text) ?? [];
  return path === undefined ? [text, 1] : [path, Number(value)];
}

/** `canny=edges.png:0.8,from=0.2,to=0.8,guess`. @throws UsageError that names what is wrong. */
export function parseControl(text: string): Omit<Control, 'net' | 'image'> & { folder?: string; picture: string } {
  const { folder, picture: rest, words } = splitControl(text);
  if (rest === undefined) throw new UsageError(`--control: expected <folder>=<picture>[:scale], got '${text}'`);
  const [picture, scale] = withNumber(rest);
  const share = (name: string, normally: number): number => {
    const [, given] = new RegExp(`,${name}=([^,]*)`).exec(words) ?? [];
    return given === undefined ? normally : number(`--control ${name}`)(given);
  };
  const interval = [share('from', 0), share('to', 1)] as const;
  if (!(interval[0] >= 0 && interval[0] < interval[1] && interval[1] <= 1))
    throw new UsageError(`--control: from and to are rising shares of the steps, 0 to 1, got '${text}'`);
  return { ...(folder !== undefined && { folder }), picture, scale, interval, guess: words.includes(',guess') };
}

async function addLoras(pipeline: TextToImage, list: readonly string[]): Promise<void> {
  for (const [path, weight] of list.map(withNumber)) {
    try {
      pipeline.addLora(loraLayers((await readSafetensors(path)).tensors), weight);
    } catch (cause) {
      throw fileError('read', path, cause);
    }
  }
}

/** Pictures to begin with, to paint on and to follow, in the size that is wanted. */
async function readPictures(pipeline: TextToImage, recipe: Recipe, wanted: readonly [number, number] | undefined) {
  const { factor } = pipeline.latents;
  const read = async (path: string, size: readonly [number, number] | undefined, channels: 1 | 3 = 3) => {
    const picture = await readImage(path, { channels, ...(size && { size }) });
    return ndarray(picture.data, [1, ...picture.shape]);
  };
  const toUnit = ({ data, shape }: NdArray<'float32'>) =>
    ndarray(
      data.map((x) => (x + 1) / 2),
      shape,
    );
  if (recipe.mask !== undefined && recipe.image === undefined)
    throw new UsageError('--mask: needs --image to paint on');
  const whole = recipe.image === undefined ? undefined : await read(recipe.image, wanted);
  // Without a size of its own, a picture gives up the few rows and columns that do not fit the latents.
  const fitted = whole && ([whole.shape[2], whole.shape[3]].map((side) => side - (side % factor)) as [number, number]);
  const size = wanted ?? fitted;
  const image =
    whole && `${fitted}` !== `${[whole.shape[2], whole.shape[3]]}` ? await read(recipe.image!, size) : whole;
  const mask = recipe.mask === undefined ? undefined : toUnit(await read(recipe.mask, size, 1));
  const own = [...(pipeline.parts.controlNets ?? [])];
  const controls: Control[] = [];
  for (const text of recipe.control) {
    const { folder, picture, ...how } = parseControl(text);
    const net = folder === undefined ? own.shift() : await loadComponent(folder);
    if (folder === undefined && !net)
      throw new UsageError(
        `--control: expected <folder>=<picture>, got '${text}', and the model has no ControlNet left`,
      );
    if (!(net instanceof ControlNet)) throw new Error(`--control: ${folder} holds no ${ControlNet.className}`);
    controls.push({ net, image: toUnit(await read(picture, size)), ...how });
  }
  return { size, image, mask, controls };
}

/** Writes picture after picture; several are numbered. */
async function save(
  images: NdArray<'float32'>,
  out: string,
  note: (i: number) => Record<string, string>,
): Promise<string[]> {
  const rasters = toRasters(images);
  const stem = out.slice(0, -extname(out).length);
  const files = rasters.map((_, i) => (rasters.length === 1 ? out : `${stem}-${i + 1}.png`));
  for (const [i, raster] of rasters.entries()) await savePng(files[i], raster, note(i));
  return files;
}
