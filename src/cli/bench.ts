import { availableParallelism } from 'node:os';
import { Argument, type Command, Option } from 'commander';
import { benchGuidance } from './bench/guidance.js';
import { isSd15, type JobName, type JobSpec, jobNames } from './bench/jobs.js';
import { type BenchResult, type MeasureOptions, measure } from './bench/measure.js';
import { benchMixers, mixerCharts } from './bench/mixers.js';
import { type TorchPeer, torchMissing, torchPeers } from './bench/participant.js';
import { type ScalingResult, scale, scalingCharts } from './bench/scaling.js';
import { type Sd15Dtype, type Sd15JobName, sd15Folder, sd15JobNames } from './bench/sd15.js';
import { sdCppProblem } from './bench/sdCpp.js';
import { chartKind, saveCharts } from './chart.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { figure, mebibytes, type Output, shellWord, table } from './output.js';
import { Progress } from './progress.js';
import { wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly batch?: number;
  readonly threads: number;
  readonly rounds: number;
  readonly peer?: TorchPeer | 'sd.cpp';
  readonly peerBinary?: string;
  readonly peerModel?: string;
  readonly quantize?: '8';
  readonly scaling?: boolean;
  readonly out?: string;
  readonly model?: string;
  readonly dtype: Sd15Dtype;
}

export function defineBench(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'bench',
      summary: 'measure time and memory of training, forward passes and guidance',
      examples: [
        'bench dit-train',
        'bench dit-train unet-train --peer torch --json',
        'bench guidance',
        'bench mixers --out mixers.svg',
        'bench dit-forward unet-forward --scaling --out scaling.png',
        'bench sd15-step sd15-vae-decode --model ./sd15-random --peer torch',
        'bench sd15-step --quantize 8',
        'bench sd15-step --peer sd.cpp --peer-binary ./sd --peer-model sd15.safetensors',
      ],
    },
    (command) => {
      command
        .addArgument(
          new Argument('[job...]', 'what to measure; default: all but mixers and sd15').choices([
            ...jobNames,
            'guidance',
            'mixers',
            ...sd15JobNames,
          ]),
        )
        .option('--batch <n>', 'pictures per step; default 32, of sd15 1', wholeNumber('--batch'))
        .option('--threads <n>', 'threads of one operation', wholeNumber('--threads'), availableParallelism())
        .option('--rounds <n>', 'rounds of at least a second each', wholeNumber('--rounds'), 5)
        .addOption(
          new Option('--peer <name>', 'also measure this, round by round in turn').choices([
            ...Object.keys(torchPeers),
            'sd.cpp',
          ]),
        )
        .option('--peer-binary <file>', 'of --peer sd.cpp: the program of stable-diffusion.cpp')
        .option('--peer-model <path>', 'of --peer sd.cpp: what it opens, a file or a folder')
        .option('--scaling', 'instead: how time and memory grow with batch, image size, width and depth')
        .option('--out <file>', 'with --scaling or mixers: also draw it, as .png or .svg')
        .option('--model <folder>', 'of sd15: random weights of its size are written there, if it is not there yet')
        .addOption(
          new Option('--dtype <name>', 'of sd15: what those weights are')
            .choices(['float32', 'float16'])
            .default('float32'),
        )
        .addOption(new Option('--quantize <bits>', "of sd15: round our side's large weights").choices(['8']))
        .addHelpText(
          'after',
          "\nDiT: 28x28, patch 2, width 192, 6 blocks, 3 heads. UNet: 28x28, 48-96-96 channels, 2 blocks a stage, attention\nat 7x7. Both with 10 classes, float32. guidance: what a sampling step of the DiT costs with guidance.\nmixers: time and memory of attention and what replaces it, from 64 to 4096 tokens.\nsd15: the shapes of Stable Diffusion 1.5 at 512x512, one step of the UNet, or the decoding of a latent.\ntorch-passive: PyTorch whose OpenMP threads sleep while they wait, which leaves OpenBLAS's a core.\nEvery side runs in a process of its own; peak memory is that process's.",
        );
    },
    bench,
  );
}

async function bench(
  output: Output,
  { scaling, peer: peerName, peerBinary, peerModel, rounds, out, batch, threads, model, dtype, quantize }: Options,
  jobs: readonly string[],
): Promise<ExitCode> {
  const peer = await peerOf(peerName, peerBinary, peerModel, jobs);
  if (out) chartKind(out);
  if (jobs.includes('mixers')) {
    if (jobs.length > 1 || scaling || peer)
      throw new UsageError('mixers: is measured on its own, without other jobs, --scaling and --peer');
    const results = await benchMixers(output, { threads, rounds });
    if (out) {
      await saveCharts(out, mixerCharts(results), { legendTitle: 'mixer' });
      output.line(`chart: ${shellWord(out)}`);
    }
    return exitCodes.ok;
  }
  if (out && !scaling) throw new UsageError('--out: a chart needs --scaling');
  if ((scaling || peer) && jobs.includes('guidance'))
    throw new UsageError('guidance: is measured against the plain model only, without --scaling and --peer');
  if (scaling && jobs.some(isSd15)) throw new UsageError('sd15: has one size, without --scaling');
  const all = scaling ? jobNames : [...jobNames, 'guidance'];
  const measured: ScalingResult[] = [];
  for (const name of (jobs.length > 0 ? jobs : all) as readonly (JobName | Sd15JobName | 'guidance')[]) {
    const options = { batch: batch ?? (isSd15(name) ? 1 : 32), threads };
    if (name === 'guidance') {
      await benchGuidance(output, options, rounds);
      continue;
    }
    const spec: JobSpec = {
      name,
      ...options,
      ...(isSd15(name) && { model: await sd15Folder(dtype, model), ...(quantize && { weights: 'int8' }) }),
    };
    const how: MeasureOptions = { rounds, peer, sgemm: !scaling };
    if (scaling) measured.push(...(await scale(output, spec, how)));
    else await measureOne(output, spec, how);
  }
  if (out) {
    await saveCharts(out, scalingCharts(measured), { columns: 4, width: 190, height: 150 });
    output.line(`chart: ${shellWord(out)}`);
  }
  return exitCodes.ok;
}

/** @throws UsageError when it cannot be measured. */
async function peerOf(
  name: Options['peer'],
  binary: string | undefined,
  model: string | undefined,
  jobs: readonly string[],
): Promise<MeasureOptions['peer']> {
  if (name !== 'sd.cpp') {
    const missing = name && torchMissing();
    if (missing) throw new UsageError(`--peer ${name}: ${missing}`);
    return name;
  }
  if (!binary || !model) throw new UsageError('--peer sd.cpp: needs --peer-binary and --peer-model');
  if (jobs.length === 0 || !jobs.every(isSd15))
    throw new UsageError(`--peer sd.cpp: makes pictures by Stable Diffusion only: name ${sd15JobNames.join(' or ')}`);
  const problem = await sdCppProblem({ binary, model });
  if (problem) throw new UsageError(`--peer sd.cpp: ${problem}`);
  return { binary, model };
}

async function measureOne(output: Output, spec: JobSpec, how: MeasureOptions): Promise<void> {
  const progress = new Progress(output, { label: spec.name, total: how.rounds, lineSeconds: Number.POSITIVE_INFINITY });
  const onRound = (round: number) => progress.update(round);
  const result = await measure(spec, { ...how, onRound }).finally(() => progress.stop());
  output.record(result);
  report(output, result);
}

function report(output: Output, result: BenchResult): void {
  const { name, batch, threads, parameters, peer } = result;
  output.line(
    `${name}: batch ${batch}, ${threads} threads, ${parameters.toLocaleString('en')} parameters, ${figure(result.flops / 1e9)} GFLOP a step`,
  );
  const row = (who: string, side: { median_ms: number; peak_rss_kb: number }) => {
    const rate = result.flops / side.median_ms / 1e6;
    const share = result.sgemm_gflops_per_second
      ? `${Math.round((100 * rate) / result.sgemm_gflops_per_second)}%`
      : '-';
    return [`  ${who}`, `${figure(side.median_ms)} ms`, mebibytes(side.peak_rss_kb), `${figure(rate)} GFLOP/s`, share];
  };
  const rows = [row('noisewright', result), ...(peer ? [row(peer.name, peer)] : [])];
  for (const line of table([['', 'median', 'peak memory', 'rate', 'of sgemm'], ...rows])) output.line(line);
  if (peer) output.line(`  ratio of time ${figure(result.ratio!)}, of memory ${figure(result.memory_ratio!)}`);
  if (result.open_ms)
    output.line(
      `  opened, and the first step done, in ${figure(result.open_ms)} ms${result.open_ratio ? `, ratio ${figure(result.open_ratio)}` : ''}`,
    );
  if (result.tiled)
    output.line(
      `  in tiles of ${result.tiled.tile}: ${figure(result.tiled.time_ms)} ms, ${mebibytes(result.tiled.peak_rss_kb)}, ratio of memory ${figure(result.tiled_memory_ratio!)}`,
    );
  const best = result.sgemm_gflops_per_second;
  output.line(
    `  graph and session made in ${figure(result.create_ms)} ms${best ? `; 1024^3 sgemm ${figure(best)} GFLOP/s` : ''}\n`,
  );
}
