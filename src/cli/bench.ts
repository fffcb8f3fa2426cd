import { availableParallelism } from 'node:os';
import { Argument, type Command, Option } from 'commander';
import { type JobName, type JobSpec, jobNames } from './bench/jobs.js';
import { type BenchResult, type MeasureOptions, measure } from './bench/measure.js';
import { torchMissing } from './bench/participant.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { figure, type Output, table } from './output.js';
import { Progress } from './progress.js';
import { wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly batch: number;
  readonly threads: number;
  readonly rounds: number;
  readonly peer?: 'torch';
  readonly scaling?: boolean;
}

export function defineBench(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'bench',
      summary: 'measure time and memory of training and forward passes',
      examples: ['bench dit-train', 'bench dit-train unet-train --peer torch --json', 'bench dit-forward --scaling'],
    },
    (command) => {
      command
        .addArgument(new Argument('[job...]', 'what to measure; default: all').choices(jobNames))
        .option('--batch <n>', 'pictures per step', wholeNumber('--batch'), 32)
        .option('--threads <n>', 'threads of one operation', wholeNumber('--threads'), availableParallelism())
        .option('--rounds <n>', 'rounds of at least a second each', wholeNumber('--rounds'), 5)
        .addOption(new Option('--peer <name>', 'also measure this, round by round in turn').choices(['torch']))
        .option('--scaling', 'instead: how time and memory grow with batch, image size, width and depth')
        .addHelpText(
          'after',
          "\nDiT: 28x28, patch 2, width 192, 6 blocks, 3 heads. UNet: 28x28, 48-96-96 channels, 2 blocks a stage, attention\nat 7x7. Both with 10 classes, float32. Every side runs in a process of its own; peak memory is that process's.",
        );
    },
    bench,
  );
}

async function bench(
  output: Output,
  { scaling, peer, rounds, ...options }: Options,
  jobs: readonly string[],
): Promise<ExitCode> {
  const missing = peer && torchMissing();
  if (missing) throw new UsageError(`--peer torch: ${missing}`);
  for (const name of (jobs.length > 0 ? jobs : jobNames) as readonly JobName[]) {
    const spec: JobSpec = { name, batch: options.batch, threads: options.threads };
    const how: MeasureOptions = { rounds, torch: peer === 'torch', sgemm: !scaling };
    if (scaling) await scale(output, spec, how);
    else await measureOne(output, spec, how);
  }
  return exitCodes.ok;
}

async function measureOne(output: Output, spec: JobSpec, how: MeasureOptions): Promise<void> {
  const progress = new Progress(output, { label: spec.name, total: how.rounds, lineSeconds: Number.POSITIVE_INFINITY });
  const onRound = (round: number) => progress.update(round);
  const result = await measure(spec, { ...how, onRound }).finally(() => progress.stop());
  output.record(result);
  report(output, result);
}

const mebibytes = (kilobytes: number): string => `${figure(kilobytes / 1024)} MiB`;

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
  const best = result.sgemm_gflops_per_second;
  output.line(
    `  graph and session made in ${figure(result.create_ms)} ms${best ? `; 1024^3 sgemm ${figure(best)} GFLOP/s` : ''}\n`,
  );
}

/** What grows, from small to large, all else as in the standard job. */
const axes: Readonly<Record<'dit' | 'unet', Readonly<Partial<Record<keyof JobSpec, readonly number[]>>>>> = {
  dit: { batch: [8, 16, 32, 64], size: [14, 28, 56], width: [96, 192, 384], depth: [3, 6, 12] },
  unet: { batch: [8, 16, 32, 64], size: [16, 28, 56], width: [32, 48, 96], depth: [1, 2, 3] },
};

async function scale(output: Output, spec: JobSpec, how: MeasureOptions): Promise<void> {
  const kind = spec.name.startsWith('dit') ? 'dit' : 'unet';
  output.line(`${spec.name}, ${spec.threads} threads, batch ${spec.batch} where it does not change`);
  for (const [axis, values] of Object.entries(axes[kind])) {
    const results: BenchResult[] = [];
    for (const value of values) {
      results.push(await measure({ ...spec, [axis]: value }, how));
      output.record({ axis, value, ...results[results.length - 1] });
    }
    const longest = Math.max(...results.map((result) => result.median_ms));
    const rows = results.map((result, i) => [
      `  ${values[i]}`,
      `${figure(result.median_ms)} ms`,
      mebibytes(result.peak_rss_kb),
      `${figure(result.gflops_per_second)} GFLOP/s`,
      ...(result.ratio ? [figure(result.ratio), figure(result.memory_ratio!)] : []),
      '█'.repeat(Math.max(1, Math.round((20 * result.median_ms) / longest))).padEnd(20),
    ]);
    const ratios = how.torch ? ['time ratio', 'memory ratio'] : [];
    for (const line of table([[axis, 'median', 'peak memory', 'rate', ...ratios, ''], ...rows])) output.line(line);
    output.line('');
  }
}
