import { join } from 'node:path';
import { z } from 'zod';
import { pathExists, readJson } from '../io/node/index.js';
import { autoregressiveNames } from '../models/index.js';
import { flowNames } from '../pipelines/index.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import type { Output } from './output.js';
import { reflow, reflowFlags } from './reflow.js';
import { type FlagGroups, flagName, type SchemaFlags } from './schemaFlags.js';
import { autoregressiveFlags, trainAutoregressive } from './trainAutoregressive.js';
import { flowFlags, trainFlow } from './trainFlow.js';

type Options = Readonly<Record<string, unknown>>;

/** What `train` trains beside models of noisy pictures. */
interface Trainer {
  /** In run.json. */
  readonly kind: string;
  readonly models: readonly string[];
  readonly flags: SchemaFlags<z.ZodType>;
  readonly train: (output: Output, options: Options) => Promise<ExitCode>;
}

const trainers: readonly Trainer[] = [
  { kind: 'flow', models: flowNames, flags: flowFlags, train: trainFlow },
  { kind: 'reflow', models: [], flags: reflowFlags, train: reflow },
  { kind: 'autoregressive', models: autoregressiveNames, flags: autoregressiveFlags, train: trainAutoregressive },
];

/** What these models are called. */
export const otherModels: readonly string[] = trainers.flatMap(({ models }) => models);

/** Settings that these models alone have. */
const own: FlagGroups = [
  [
    'Flows and autoregressive models:',
    {
      testImages: 'test pictures whose likelihood is measured at each checkpoint; 0 for none',
      labels: 'of autoregressive models: model pictures and classes together, p(x, y)',
    },
  ],
];
export const addOtherOptions = (command: Parameters<typeof autoregressiveFlags.addTo>[0]): void =>
  autoregressiveFlags.addTo(command, own);

/**
 * Who trains what these options ask for: a new run of such a model, or one that is continued.
 * @returns undefined for models of noisy pictures. @throws UsageError for an option that is not for this model.
 */
export async function otherTrainer(options: Options): Promise<Trainer['train'] | undefined> {
  const kind = typeof options.resume === 'string' ? await kindOfRun(options.resume) : undefined;
  const found = trainers.find((trainer) => trainer.kind === kind || trainer.models.includes(options.model as string));
  const known = (name: string) => ['out', 'resume', 'preset'].includes(name) || !found || found.flags.has(name);
  const others = Object.keys(own[0][1]);
  const odd = Object.keys(options).find((name) => (found ? !known(name) : others.includes(name)));
  const model = options.model ?? kind ?? 'models that denoise';
  if (odd) throw new UsageError(`${flagName(odd)} is not for ${model}; leave it out`);
  return found?.train;
}

/** What kind of training a folder holds: undefined for models of noisy pictures, and where there is none. */
export async function kindOfRun(folder: string): Promise<string | undefined> {
  const path = join(folder, 'run.json');
  if (!(await pathExists(path))) return undefined;
  return (await readJson(path, z.looseObject({ kind: z.string().optional() }))).kind;
}
