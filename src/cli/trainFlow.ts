import { flowArchitectures, flowTraining } from '../pipelines/index.js';
import { type FlowEvent, FlowRun } from '../pipelines/node/index.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { type Output, shellWord } from './output.js';
import { describeRun, presetConfig, type RunOptions } from './runFlags.js';
import { SchemaFlags } from './schemaFlags.js';
import { openRun, trainLoop } from './trainLoop.js';

/** The settings of a flow's run that `train` takes. */
export const flowFlags = new SchemaFlags(flowTraining);

/** `train` of a normalizing flow. */
export async function trainFlow(output: Output, { out, resume, preset, ...options }: RunOptions): Promise<ExitCode> {
  const given = { ...flowFlags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, {
    create: (folder) => FlowRun.create(settings(options, preset), folder),
    resume: (folder, changes) => FlowRun.resume(folder, changes),
  });
  const { dataset, model, folder, config } = run;
  describeRun(output, config.model, model, dataset);
  return trainLoop<FlowEvent>(output, run, {
    command: 'train',
    show: `sample-flow ${shellWord(folder)}`,
    onEvent: async ({ split, images, bitsPerDim, logLikelihood }, progress) =>
      progress.log(
        `${bitsPerDim.toFixed(3)} bits per dimension over ${images} ${split} pictures (log p(x) ${logLikelihood.toFixed(1)} nats)`,
      ),
  });
}

function settings(options: Readonly<Record<string, unknown>>, preset?: string) {
  const { modelConfig, ...given } = flowFlags.given(options);
  if (given.data === undefined) throw new UsageError('--data is missing: such as mnist');
  const name = given.model as keyof typeof flowArchitectures;
  const { presets } = flowArchitectures[name];
  return flowFlags.parse({ ...given, modelConfig: presetConfig(presets, preset, modelConfig, name) });
}
