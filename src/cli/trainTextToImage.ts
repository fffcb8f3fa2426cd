import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { textToImagePresets, textToImageTraining } from '../pipelines/index.js';
import { TextToImageRun } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { figure, type Output, shellWord } from './output.js';
import { Progress } from './progress.js';
import { addFolderFlags, learningFlags, type RunOptions } from './runFlags.js';
import { type FlagGroups, flagName, jsonObject, presetNamed, SchemaFlags } from './schemaFlags.js';
import { openRun, reportSkipped, trainLoop } from './trainLoop.js';

const groups: FlagGroups = [
  [
    'Model:',
    {
      model: "a folder in diffusers' layout to begin with",
      vae: 'from scratch: the folder of an autoencoder, or of its run (train-vae)',
      textEncoder: 'from scratch: train the text encoder jointly, or leave it as it is drawn',
      vocabulary: "from scratch: most entries of the tokenizer's vocabulary",
      predict: 'from scratch: what the model predicts; flow trains a rectified flow',
      betaSchedule: 'from scratch: noise schedule (not for flow)',
      trainTimesteps: 'from scratch: number of noise levels (not for flow)',
      zeroTerminalSnr: 'from scratch: rescale the schedule so that its last level is pure noise',
    },
  ],
  [
    'What is trained (default: the whole UNet or transformer):',
    {
      loraRank: 'train a LoRA of this rank instead',
      loraAlpha: 'its change is scaled by alpha / rank; default: the rank',
      loraTargets: 'regular expression of the layers it changes; default: the projections of all attention',
      controlnet: 'train a ControlNet instead, begun as a copy of the UNet',
      hint: "what the ControlNet is shown: the files named by 'conditioning' in metadata.jsonl, or edges drawn here",
    },
  ],
  [
    'Data:',
    {
      data: 'a folder of pictures with captions, in metadata.jsonl or in .txt files beside them',
      size: "scale and crop pictures to this side length; default: the model's",
      skipCorrupt: 'leave out pictures that cannot be read or have no caption instead of failing',
      promptDropout: 'share of pictures trained with the empty prompt, for classifier-free guidance',
      minSnrGamma: 'min-SNR loss weighting, such as 5 (not for flow)',
      timestepDensity: 'how often each noise level is trained (flow, SD3)',
      flowWeighting: 'how much each noise level counts (flow, SD3)',
      preconditionOutputs: "measure the error of the clean latents, as diffusers' SD3 script (flow, SD3)",
    },
  ],
  ...learningFlags,
];
const flags = new SchemaFlags(textToImageTraining);
const scratchOnly = [
  'vae',
  'textEncoder',
  'vocabulary',
  'predict',
  'betaSchedule',
  'trainTimesteps',
  'zeroTerminalSnr',
];

export function defineTrainTextToImage(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'train-text-to-image',
      summary: 'train a latent diffusion model of pictures with captions: whole, a LoRA, a ControlNet, or from scratch',
      examples: [
        'train-text-to-image --model ./sd15 --data photos --lora-rank 8 --steps 1000 --out runs/lora',
        'train-text-to-image --model ./sd15 --data photos --controlnet --hint edges --out runs/edges',
        'train-text-to-image --preset xs --vae runs/vae --data emoji --steps 3000 --out runs/a',
        'train-text-to-image --resume runs/a --steps 6000',
      ],
    },
    (command) => {
      const sizes = Object.keys(textToImagePresets).join(', ');
      addFolderFlags(command);
      for (const [flag, text] of [
        ['--preset <name>', `from scratch: size: ${sizes} (default: xs)`],
        ['--model-config <json>', "from scratch: fields of the UNet's config that win over the preset"],
        ['--text-config <json>', "from scratch: fields of the text encoder's config that win over the preset"],
      ])
        command.addOption(new Option(flag, text).helpGroup('Model:'));
      flags.addTo(command, groups);
    },
    train,
  );
}

async function train(output: Output, { out, resume, preset, ...options }: RunOptions): Promise<ExitCode> {
  const given = { ...flags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, {
    create: (folder) => TextToImageRun.create(settings(options, preset), folder),
    resume: (folder, changes) => TextToImageRun.resume(folder, changes),
  });
  const { system, data, config } = run;
  const parts = Object.entries(system.trained).map(
    ([part, module]) => `${part} (${figure(module.parameterCount() / 1e6)} million parameters)`,
  );
  output.line(`training ${parts.join(' and ')}; ${config.data}: ${data.pictures.length} pictures with captions`);
  reportSkipped(output, data.skipped);
  run.onSkipped = (reasons) => reportSkipped(output, reasons);
  let caching: { readonly what: string; readonly progress: Progress } | undefined;
  run.onPreparing = (what, done, total) => {
    if (caching?.what !== what) {
      caching = { what, progress: new Progress(output, { label: `encoding ${what}`, total }) };
    }
    caching.progress.update(done);
    if (done === total) caching.progress.stop();
  };
  return trainLoop(output, run, { command: 'train-text-to-image', show: showCommand(run) });
}

/** How what was trained is used. */
function showCommand({ folder, config, product, data }: TextToImageRun): string {
  const prompt = shellWord(data.pictures[0].caption);
  const base = `generate --model ${shellWord(config.model ?? folder)} ${prompt}`;
  if (product === 'controlnet') return `${base} --control ${shellWord(join(folder, product))}=edges.png`;
  if (product !== 'model_index.json') return `${base} --lora ${shellWord(join(folder, product))}`;
  return `generate --model ${shellWord(folder)} ${prompt}`;
}

function settings(options: Readonly<Record<string, unknown>>, preset: string | undefined) {
  const { modelConfig, textConfig, ...given } = flags.given(options);
  if (given.data === undefined) throw new UsageError('--data is missing: a folder of pictures with captions');
  if (given.model !== undefined) {
    const odd =
      scratchOnly.find((field) => field in given) ??
      Object.entries({ preset, modelConfig, textConfig }).find(([, value]) => value !== undefined)?.[0];
    if (odd) throw new UsageError(`${flagName(odd)} is for training from scratch; leave it out beside --model`);
    return flags.parse(given);
  }
  if (given.vae === undefined)
    throw new UsageError("--model is missing: a folder in diffusers' layout; or, to train from scratch, --vae");
  const { unet, text } = presetNamed(textToImagePresets, preset ?? 'xs');
  return flags.parse({
    ...given,
    modelConfig: { ...unet, ...jsonObject('--model-config', modelConfig as string | undefined) },
    textConfig: { ...text, ...jsonObject('--text-config', textConfig as string | undefined) },
  });
}
