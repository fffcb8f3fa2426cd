import type { Chart } from '../chart.js';
import { figure, mebibytes, type Output, table } from '../output.js';
import type { JobSpec } from './jobs.js';
import { type BenchResult, type MeasureOptions, measure } from './measure.js';

const axisTitles = { batch: 'batch', size: 'pixels a side', width: 'width', depth: 'depth' } as const;
type Axis = keyof typeof axisTitles;

/** What grows, from small to large, all else as in the standard job. */
const axes: Readonly<Record<'dit' | 'unet', Readonly<Record<Axis, readonly number[]>>>> = {
  dit: { batch: [8, 16, 32, 64], size: [14, 28, 56], width: [96, 192, 384], depth: [3, 6, 12] },
  unet: { batch: [8, 16, 32, 64], size: [16, 28, 56], width: [32, 48, 96], depth: [1, 2, 3] },
};

export interface ScalingResult extends Pick<BenchResult, 'name' | 'cpu_ms' | 'peak_rss_kb'> {
  readonly axis: Axis;
  readonly value: number;
}

/** Measures a job along each axis, and tells of every step. */
export async function scale(output: Output, spec: JobSpec, how: MeasureOptions): Promise<ScalingResult[]> {
  const all: ScalingResult[] = [];
  output.line(`${spec.name}, ${spec.threads} threads, batch ${spec.batch} where it does not change`);
  for (const [axis, values] of Object.entries(axes[spec.name.startsWith('dit') ? 'dit' : 'unet'])) {
    const results: BenchResult[] = [];
    for (const value of values) {
      const result = await measure({ ...spec, [axis]: value }, how);
      results.push(result);
      all.push({ ...result, axis: axis as Axis, value });
      output.record({ axis, value, ...result });
    }
    const longest = Math.max(...results.map((result) => result.cpu_ms));
    const rows = results.map((result, i) => [
      `  ${values[i]}`,
      `${figure(result.median_ms)} ms`,
      `${figure(result.cpu_ms)} ms`,
      mebibytes(result.peak_rss_kb),
      `${figure(result.gflops_per_second)} GFLOP/s`,
      ...(result.ratio ? [figure(result.ratio), figure(result.memory_ratio!)] : []),
      '█'.repeat(Math.max(1, Math.round((20 * result.cpu_ms) / longest))).padEnd(20),
    ]);
    const ratios = how.peer ? ['time ratio', 'memory ratio'] : [];
    for (const line of table([[axis, 'median', 'processor', 'peak memory', 'rate', ...ratios, ''], ...rows]))
      output.line(line);
    output.line('');
  }
  return all;
}

const growing = {
  'processor time, ms': (r: ScalingResult) => r.cpu_ms,
  'memory, MiB': (r: ScalingResult) => r.peak_rss_kb / 1024,
};

/** Processor time of a step, then memory, along each axis, both scales logarithmic: a straight line is a power. */
export function scalingCharts(results: readonly ScalingResult[]): Chart[] {
  const jobs = [...new Set(results.map(({ name }) => name))];
  return Object.entries(growing).flatMap(([yTitle, y]) =>
    Object.entries(axisTitles).map(([axis, xTitle]): Chart => {
      const own = results.filter((result) => result.axis === axis);
      return {
        xTitle,
        yTitle,
        xScale: 'log',
        yScale: 'log',
        xTicks: [...new Set(own.map(({ value }) => value))].sort((a, b) => a - b),
        series: jobs.map((name) => ({
          name,
          points: own.filter((result) => result.name === name).map((r) => ({ x: r.value, y: y(r) })),
        })),
      };
    }),
  );
}
