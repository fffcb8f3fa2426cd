import { Command, CommanderError } from 'commander';
import { DivergedError } from '../training/index.js';
import { defineBench } from './bench.js';
import type { Cli } from './command.js';
import { defineData } from './data.js';
import { defineDemo } from './demo.js';
import { defineEval } from './eval.js';
import { type ExitCode, exitCodes, exitCodesHelp, UsageError } from './exitCodes.js';
import { defineExport } from './exportOnnx.js';
import { defineInfo } from './info.js';
import { defineInterpolate } from './interpolate.js';
import { defineLikelihood } from './likelihood.js';
import type { Sink } from './output.js';
import { packageVersion } from './package.js';
import { defineReflow } from './reflow.js';
import { defineSample } from './sample.js';
import { defineSampleAutoregressive } from './sampleAutoregressive.js';
import { defineSampleFlow } from './sampleFlow.js';
import { defineStylize } from './stylize.js';
import { defineSweep } from './sweep.js';
import { defineTextToImage } from './textToImage.js';
import { defineTrain } from './train.js';
import { defineTrainAutoregressive } from './trainAutoregressive.js';
import { defineTrainClassifier } from './trainClassifier.js';
import { defineTrainStyle } from './trainStyle.js';
import { defineTrainTextToImage } from './trainTextToImage.js';
import { defineTrainVae } from './trainVae.js';

const examples = `
Examples:
  $ noisewright demo                                    # two minutes of training, then pictures
  $ noisewright sample --classes all --guidance 3       # from the checkpoint that comes with it
  $ noisewright train --model dit --data fashion-mnist --steps 2000 --out runs/a
  $ noisewright sample runs/a --out grid.png

${exitCodesHelp}

With NOISEWRIGHT_DEBUG=1, errors come with their stack.`;

/** Every command of the command line. */
function program(cli: Cli): Command {
  const root = new Command('noisewright')
    .description('Train, guide and sample conditional diffusion models.')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({
      writeOut: (text) => cli.sink.out(text.trimEnd()),
      writeErr: (text) => cli.sink.err(text.trimEnd()),
    })
    .showHelpAfterError('(--help lists what is allowed)')
    .addHelpText('after', examples);
  for (const define of [
    defineTrain,
    defineReflow,
    defineSample,
    defineEval,
    defineTextToImage,
    defineSweep,
    defineBench,
    defineInterpolate,
    defineLikelihood,
    defineInfo,
    defineExport,
    defineDemo,
    defineTrainClassifier,
    defineTrainTextToImage,
    defineTrainVae,
    defineTrainAutoregressive,
    defineSampleAutoregressive,
    defineSampleFlow,
    defineStylize,
    defineTrainStyle,
    defineData,
  ])
    define(root, cli);
  return root;
}

/** Runs the command line. @param args without node and script. @returns the exit code. */
export async function runCli(args: readonly string[], sink: Sink): Promise<ExitCode> {
  const cli: Cli = { sink, exitCode: exitCodes.ok };
  try {
    await program(cli).parseAsync([...args], { from: 'user' });
    return cli.exitCode;
  } catch (error) {
    const json = args.includes('--json');
    if (!(error instanceof CommanderError)) return report(error, sink, json);
    if (error.exitCode === 0) return exitCodes.ok;
    if (json) sink.out(errorRecord(error.message.replace(/^error: /, ''), exitCodes.usage));
    return exitCodes.usage;
  }
}

/** One line that says what is wrong. */
function report(error: unknown, sink: Sink, json: boolean): ExitCode {
  const { name, message: said, stack } = error instanceof Error ? error : new Error(String(error));
  const exitCode = exitCodeOf(error, name);
  const message = exitCode === exitCodes.interrupted ? 'interrupted' : said || name;
  sink.err(`noisewright: ${message}`);
  if (process.env.NOISEWRIGHT_DEBUG === '1') sink.err(stack ?? '');
  if (json) sink.out(errorRecord(message, exitCode));
  return exitCode;
}

const errorRecord = (message: string, exitCode: ExitCode): string =>
  JSON.stringify({ kind: 'error', message, exitCode });

function exitCodeOf(error: unknown, name: string): ExitCode {
  if (error instanceof UsageError) return exitCodes.usage;
  if (error instanceof DivergedError) return exitCodes.diverged;
  return name === 'AbortError' ? exitCodes.interrupted : exitCodes.failure;
}
