import type { Command } from 'commander';
import { writeFileAtomic } from '../io/node/index.js';
import type { Denoiser } from '../models/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { type OnnxInput, toOnnx } from '../tensor/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { figure, type Output } from './output.js';
import { shippedCheckpoint } from './package.js';
import { wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly onnx?: string;
  readonly batch?: number;
}

export function defineExport(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'export',
      summary: 'write the denoiser of a run as an ONNX file, its weights inside',
      examples: ['export runs/a --onnx out.onnx', 'export --onnx fashion.onnx --batch 1'],
    },
    (command) => {
      command
        .argument('[run]', 'folder of a run; default: the checkpoint that comes with noisewright')
        .option('--onnx <file>', 'where to write it')
        .option('--batch <n>', 'a fixed number of pictures; default: any', wholeNumber('--batch'))
        .addHelpText(
          'after',
          '\nInputs:  sample [batch, C, H, W] float32, timestep [batch] float32, class_labels [batch] int64\nOutput:  prediction [batch, C, H, W] (what the model was trained to predict)\nThe label after the last class stands for no class: guidance mixes the two predictions.',
        );
    },
    exportModel,
  );
}

async function exportModel(
  output: Output,
  { onnx, batch }: Options,
  [run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  if (onnx === undefined) throw new UsageError('--onnx is missing: the file to write, such as out.onnx');
  const { model, sampler } = await ClassConditionalPipeline.fromPretrained(run);
  const file = denoiserOnnx(model, batch);
  await writeFileAtomic(onnx, file);
  output.line(`${onnx}: ${figure(file.length / 2 ** 20)} MiB, predicts ${sampler.predictionType}`);
  output.record({ kind: 'export', onnx, bytes: file.length, predicts: sampler.predictionType });
  return exitCodes.ok;
}

/**
 * A denoiser as an ONNX file. @param batch default: any.
 * @throws Error when the model's graph depends on the batch, and `batch` is not given.
 */
export function denoiserOnnx(model: Denoiser, batch: number | 'batch' = 'batch'): Uint8Array {
  const { inChannels, sampleSize } = model;
  const labels: Record<string, OnnxInput> =
    model.nullClass === undefined ? {} : { class_labels: { shape: [batch], dtype: 'int64' } };
  return toOnnx(
    ({ sample, timestep, class_labels }) => ({ prediction: model.forward(sample, timestep, class_labels) }),
    {
      sample: { shape: [batch, inChannels, sampleSize, sampleSize], dtype: 'float32' },
      timestep: { shape: [batch], dtype: 'float32' },
      ...labels,
    },
    model.namedVariables(),
  );
}
