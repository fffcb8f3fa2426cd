import { fileURLToPath } from 'node:url';
import { type TokenMixerName, tokenMixers } from '../../nn/index.js';
import type { Chart } from '../chart.js';
import { figure, mebibytes, type Output, table } from '../output.js';
import { Participant } from './participant.js';

/** What a process of mixerWorker.ts measures. */
export interface MixerSpec {
  readonly mixer: 'softmax' | TokenMixerName;
  /** Tokens. */
  readonly length: number;
  /** Channels; a multiple of 32, the width of a head. */
  readonly width: number;
  readonly threads: number;
}

export interface MixerResult extends MixerSpec {
  readonly parameters: number;
  /** Of a forward and backward pass over one sequence: the shortest, as other load on the machine only adds. */
  readonly best_ms: number;
  readonly peak_rss_kb: number;
}

const lengths = [64, 128, 256, 512, 1024, 2048, 4096] as const;
const width = 64;
/** How long a round lasts at least. */
const roundMs = 100;

/** Time and memory of every mixer against the number of tokens, each in a process of its own. */
export async function benchMixers(
  output: Output,
  { threads, rounds }: { threads: number; rounds: number },
): Promise<MixerResult[]> {
  output.line(`mixers of ${width} channels, one sequence forward and backward, ${threads} threads`);
  const results: MixerResult[] = [];
  for (const mixer of ['softmax', ...tokenMixers] as const) {
    const own: MixerResult[] = [];
    for (const length of lengths) own.push(await measure({ mixer, length, width, threads }, rounds));
    for (const result of own) output.record(result);
    const rows = own.map(({ length, best_ms: ms, peak_rss_kb: peak }, i) => [
      `  ${length}`,
      `${figure(ms)} ms`,
      i > 0 ? `x ${figure(ms / own[i - 1].best_ms)}` : '',
      mebibytes(peak),
    ]);
    for (const line of table([[mixer, 'best', 'growth', 'peak memory'], ...rows])) output.line(line);
    output.line('');
    results.push(...own);
  }
  return results;
}

async function measure(spec: MixerSpec, rounds: number): Promise<MixerResult> {
  const worker = fileURLToPath(new URL('./mixerWorker.js', import.meta.url));
  const participant = await Participant.start(process.execPath, [worker, JSON.stringify(spec)]);
  try {
    const [first] = await participant.round(1, { warmup: true });
    const steps = Math.ceil(roundMs / first);
    for (let i = 0; i < rounds; i++) await participant.round(steps);
    return {
      ...spec,
      parameters: participant.ready.parameters,
      best_ms: Math.min(...participant.times),
      peak_rss_kb: participant.peakRssKb,
    };
  } finally {
    participant.stop();
  }
}

/** Time and memory, both scales logarithmic: a line twice as steep is a square. */
export function mixerCharts(results: readonly MixerResult[]): Chart[] {
  const values = {
    'time, ms': (r: MixerResult) => r.best_ms,
    'peak memory, MiB': (r: MixerResult) => r.peak_rss_kb / 1024,
  };
  const mixers = [...new Set(results.map(({ mixer }) => mixer))];
  return Object.entries(values).map(([yTitle, y]) => ({
    xTitle: 'tokens',
    yTitle,
    xScale: 'log',
    yScale: 'log',
    xTicks: [...lengths],
    series: mixers.map((name) => ({
      name,
      points: results.filter(({ mixer }) => mixer === name).map((r) => ({ x: r.length, y: y(r) })),
    })),
  }));
}
