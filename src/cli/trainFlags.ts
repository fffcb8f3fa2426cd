import { type Command, Option } from 'commander';
import { conditionings, DiT, DiTVariant, EncoderUNet, trainableClass, trainableClasses } from '../models/index.js';
import { tokenMixers } from '../nn/index.js';
import { denoiserFields, type TrainConfig, trainConfig } from '../training/index.js';
import { UsageError } from './exitCodes.js';
import { learningFlags, pictureFlags } from './runFlags.js';
import { type FlagGroups, flagName, jsonObject, presetNamed, SchemaFlags } from './schemaFlags.js';

type Field = Exclude<keyof TrainConfig, 'model' | 'modelConfig'>;

/** What each field of a run's config means, group by group. Types, choices and defaults are read from its schema. */
const groups: FlagGroups<Field> = [
  [
    'Data:',
    {
      data: 'fashion-mnist, mnist, a folder with one sub-folder of pictures per class, idx:DIR, cifar10:DIR, FILE.npz or FILE.safetensors',
      vae: 'folder of an autoencoder (train-vae makes one): train on its latents, as latent diffusion does',
      ...pictureFlags,
    },
  ],
  [
    'Diffusion:',
    {
      predict: 'what the model predicts; flow trains a rectified flow',
      betaSchedule: 'noise schedule (not for flow)',
      trainTimesteps: 'number of noise levels (not for flow)',
      zeroTerminalSnr: 'rescale the schedule so that its last level is pure noise',
      learnVariance: 'learn the variance, too, as improved DDPM and DiT do (not for flow)',
      minSnrGamma: 'min-SNR loss weighting, such as 5',
      path: 'the way from noise to pictures (flow)',
      pathPower: 'n of polynomial, t^n',
      bridgeSigma: 'width of schrodinger-bridge',
      coupling: 'how noise and the pictures of a batch are paired; ot: by optimal transport within each class (flow)',
      timestepDensity: 'how often each noise level is trained (flow)',
      flowWeighting: 'how much each noise level counts (flow, cond-ot)',
      conditionDropout: 'share of pictures trained without their class, for classifier-free guidance',
    },
  ],
  ...learningFlags,
  ['Run:', { sampleEvery: 'steps between sample grids (in samples/ of the run); 0 for none' }],
];

const flags = new SchemaFlags(trainConfig);

/** Fields of a model's config that are options of their own. */
const modelChoices = {
  mixer: {
    of: DiT.className,
    choices: ['softmax', ...tokenMixers],
    text: 'what its tokens see each other by (default: softmax)',
  },
  conditioning: {
    of: DiTVariant.className,
    choices: conditionings,
    text: 'how timestep and class reach its blocks (default: adaln-zero)',
  },
} as const;
const modelChoiceNames = Object.keys(modelChoices) as (keyof typeof modelChoices)[];

/** Every field of {@link TrainConfig} as an option of the command. @param others models that are trained otherwise. */
export function addTrainOptions(command: Command, others: readonly string[]): void {
  const models = [...trainableClasses.map(({ name }) => name), ...others];
  command.addOption(new Option('--model <name>', 'architecture').choices(models).helpGroup('Model:'));
  for (const [flag, text] of [
    [
      '--preset <name>',
      `size: ${trainableClasses.map(presetList).join('; ')} ; the others: tiny, xs, full (default: xs)`,
    ],
    ['--model-config <json>', `config fields that win over the preset, such as '{"patchSize": 4}'`],
  ])
    command.addOption(new Option(flag, text).helpGroup('Model:'));
  for (const [field, { of, choices, text }] of Object.entries(modelChoices))
    command.addOption(
      new Option(`--${field} <name>`, `of ${trainableClass(of).name}: ${text}`).choices(choices).helpGroup('Model:'),
    );
  flags.addTo(command, groups);
}

const presetList = ({ name, presets }: (typeof trainableClasses)[number]): string =>
  `${name}: ${Object.keys(presets).join(', ')}`;

/** The parsed options that are fields of a run's config, as the user gave them. */
export const givenTrainFields = ({
  preset,
  ...options
}: Readonly<Record<string, unknown>>): Record<string, unknown> => ({
  ...flags.given(options),
  ...(preset !== undefined && { preset }),
  ...givenChoices(options),
});

/** The parsed options that are fields of a model's config. */
const givenChoices = (options: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    modelChoiceNames.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  );

/** Fields that say nothing but beside certain others. */
const conditions: readonly (readonly [
  only: readonly Field[],
  goes: (config: TrainConfig) => boolean,
  beside: string,
])[] = [
  [
    ['betaSchedule', 'trainTimesteps', 'zeroTerminalSnr', 'learnVariance', 'minSnrGamma'],
    ({ predict }) => predict !== 'flow',
    '--predict epsilon, x0 or v',
  ],
  [['timestepDensity', 'flowWeighting', 'path', 'coupling'], ({ predict }) => predict === 'flow', '--predict flow'],
  [['pathPower'], ({ path }) => path === 'polynomial', '--path polynomial'],
  [['bridgeSigma'], ({ path }) => path === 'schrodinger-bridge', '--path schrodinger-bridge'],
  [['flowWeighting'], ({ path }) => path === 'cond-ot', '--path cond-ot'],
  [['betas'], ({ optimizer }) => optimizer === 'adamw', '--optimizer adamw'],
  [['momentum'], ({ optimizer }) => optimizer === 'sgd', '--optimizer sgd'],
  [['lrStepRules'], ({ lrSchedule }) => lrSchedule === 'piecewise_constant', '--lr-schedule piecewise_constant'],
];

/**
 * The config of a new run.
 * @throws UsageError that names the flag, what it expects and what it was given.
 */
export function trainConfigOf(options: Readonly<Record<string, unknown>>): TrainConfig {
  const { preset = 'xs', modelConfig, model, ...given } = givenTrainFields(options);
  const choices = givenChoices(given);
  const fields = flags.given(given);
  if (model === undefined)
    throw new UsageError(`--model is missing: one of ${trainableClasses.map(({ name }) => name).join(', ')}`);
  if (fields.data === undefined)
    throw new UsageError('--data is missing: such as fashion-mnist, or a folder of pictures');
  const { className, name, presets } = trainableClass(model);
  const odd = className === EncoderUNet.className && denoiserFields.find((field) => field in fields);
  if (odd) throw new UsageError(`${flagName(odd)} is for models that denoise; leave it out for ${name}`);
  const chosen = presetNamed<object>(presets, preset as string, name);
  for (const choice of Object.keys(choices) as (keyof typeof modelChoices)[]) {
    const { of } = modelChoices[choice];
    if (of !== className)
      throw new UsageError(`--${choice} is for ${trainableClass(of).name}; leave it out for ${name}`);
  }
  const config = {
    ...chosen,
    ...choices,
    ...jsonObject('--model-config', modelConfig as string | undefined),
  };
  const settings = flags.parse({ ...fields, model: className, modelConfig: config });
  for (const [only, goes, beside] of conditions) {
    const odd = only.find((field) => fields[field] !== undefined && !goes(settings));
    if (odd) throw new UsageError(`${flagName(odd)} goes with ${beside} only`);
  }
  return settings;
}
