import { flowArchitectures, flowTraining } from '../pipelines/index.js';
import { type FlowEvent, FlowRun } from '../pipelines/node/index.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { figure, type Output, shellWord } from './output.js';
import { flagName, jsonObject, presetNamed, SchemaFlags } from './schemaFlags.js';
import { openRun, reportSkipped, trainLoop } from './trainLoop.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly resume?: string;
  readonly preset?: string;
}

/** The settings of a flow's run that `train` takes. */
export const flowFlags = new SchemaFlags(flowTraining);

/** `train` of a normalizing flow. */
export async function trainFlow(output: Output, { out, resume, preset, ...options }: Options): Promise<ExitCode> {
  const given = { ...flowFlags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, flagName, {
    create: (folder) => FlowRun.create(settings(options, preset), folder),
    resume: (folder, changes) => FlowRun.resume(folder, changes),
  });
  const { dataset, model, folder, config } = run;
  output.line(
    `${config.model}, ${figure(model.parameterCount() / 1e6)} million parameters; ${dataset.name}: ${dataset.length} pictures of ${dataset.shape.join('x')}`,
  );
  reportSkipped(output, dataset.skipped);
  return trainLoop<FlowEvent>(output, run, {
    command: 'train',
    show: `sample-flow ${shellWord(folder)}`,
    onEvent: async ({ split, images, bitsPerDim, logLikelihood }, progress) =>
      progress.log(
        `${bitsPerDim.toFixed(3)} bits per dimension over ${images} ${split} pictures (log p(x) ${logLikelihood.toFixed(1)} nats)`,
      ),
  });
}

function settings(options: Readonly<Record<string, unknown>>, preset = 'xs') {
  const { modelConfig, ...given } = flowFlags.given(options);
  if (given.data === undefined) throw new UsageError('--data is missing: such as mnist');
  const config = jsonObject('--model-config', modelConfig as string | undefined);
  const name = given.model as keyof typeof flowArchitectures;
  const { presets } = flowArchitectures[name];
  return flowFlags.parse({ ...given, modelConfig: { ...presetNamed(presets, preset, name), ...config } });
}
