import { type Command, Option } from 'commander';
import type { Dataset } from '../data/index.js';
import type { Module } from '../nn/index.js';
import { figure, type Output } from './output.js';
import { type FlagGroups, jsonObject, presetNamed } from './schemaFlags.js';
import { reportSkipped } from './trainLoop.js';

/** What every command that trains is given beside the settings of a run. */
export interface RunOptions extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly resume?: string;
  readonly preset?: string;
}

/** Where the run is. */
export const addFolderFlags = (command: Command): Command =>
  command.option('--out <dir>', 'folder of the new run').option('--resume <dir>', 'continue the run in this folder');

/** A model's size and config. @param example of the config. */
export function addPresetFlags(command: Command, presets: object, example: string): void {
  const sizes = Object.keys(presets).join(', ');
  for (const [flag, text] of [
    ['--preset <name>', `size: ${sizes} (default: xs)`],
    ['--model-config <json>', `config fields that win over the preset, such as '${example}'`],
  ])
    command.addOption(new Option(flag, text).helpGroup('Model:'));
}

/** The config that these two name. @param model whose sizes these are. */
export const presetConfig = (
  presets: Readonly<Record<string, object>>,
  preset: string | undefined,
  modelConfig: unknown,
  model?: string,
): Record<string, unknown> => ({
  ...presetNamed(presets, preset ?? 'xs', model),
  ...jsonObject('--model-config', modelConfig as string | undefined),
});

/** What becomes of pictures. */
export const pictureFlags = {
  size: 'scale and crop pictures to this side length',
  flip: 'mirror every second picture, chosen anew each epoch',
  skipCorrupt: 'leave out pictures that cannot be read instead of failing',
};

/** The flags that every training has. */
export const learningFlags: FlagGroups = [
  [
    'Optimisation:',
    {
      steps: 'total number of optimiser steps',
      batch: 'pictures per batch',
      accumulate: 'batches whose gradients are averaged before a step',
      seed: 'of initial weights, data order and noise',
      optimizer: 'update rule',
      learningRate: 'highest learning rate',
      lrSchedule: 'how the learning rate changes',
      lrStepRules: 'factors of piecewise_constant, such as 1:1000,0.1:2000,0.01',
      warmup: 'steps over which the learning rate rises from 0',
      weightDecay: 'decoupled decay, spared on biases, norms and embeddings',
      betas: 'decay rates of the moments of adamw',
      momentum: 'of sgd',
      clipNorm: 'scale gradients down to this joint norm',
      emaDecay: 'decay of the averaged weights that are saved for use',
    },
  ],
  [
    'Run:',
    {
      checkpointEvery: 'steps between checkpoints',
      keep: 'checkpoints to keep',
      logEvery: 'steps between lines of metrics.jsonl',
      device: 'where the computation runs',
      threads: 'threads of one operation; default: one per core',
    },
  ],
];

/** Says what is trained on what. */
export function describeRun(output: Output, name: string, model: Module, dataset: Dataset, more = ''): void {
  output.line(
    `${name}, ${figure(model.parameterCount() / 1e6)} million parameters; ${dataset.name}: ${dataset.length} pictures of ${dataset.shape.join('x')}${more}`,
  );
  reportSkipped(output, dataset.skipped);
}
