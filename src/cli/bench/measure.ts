import { isSd15, type JobSpec, jobFlops, sgemmFlops } from './jobs.js';
import { type Participant, startOurs, startTorch } from './participant.js';

interface Side {
  readonly median_ms: number;
  readonly times_ms: readonly number[];
  readonly peak_rss_kb: number;
  readonly parameters: number;
  /** From opening the model's folder to the end of the first step, where there is a folder. */
  readonly open_ms?: number;
}

/** What `bench --json` prints for a job. */
export interface BenchResult extends Side {
  readonly name: string;
  readonly batch: number;
  readonly threads: number;
  readonly size?: number;
  readonly width?: number;
  readonly depth?: number;
  /** Of one step. */
  readonly flops: number;
  /** Processor time of a step over all threads, waiting ones included: on a busy machine steadier than its time. */
  readonly cpu_ms: number;
  /** Building the graph and the session. */
  readonly create_ms: number;
  readonly gflops_per_second: number;
  /** The machine's best rate of a 1024^3 product in the same run, where it was measured, and this job's share of it. */
  readonly sgemm_gflops_per_second?: number;
  readonly sgemm_share?: number;
  readonly peer?: Side & { readonly name: string };
  /** Of the medians, ours to the peer's. */
  readonly ratio?: number;
  readonly memory_ratio?: number;
  readonly open_ratio?: number;
}

export interface MeasureOptions {
  readonly rounds: number;
  readonly torch: boolean;
  /** Measure the machine's own rate, too. */
  readonly sgemm: boolean;
  onRound?(round: number): void;
}

/** Milliseconds that a round should take at least. */
export const roundMs = 1000;

/**
 * Measures a job in processes of their own, which take turns: ours, the peer's, ours ... Warm-up rounds come first and
 * set how many steps a round has.
 */
export async function measure(spec: JobSpec, { rounds, torch, sgemm, onRound }: MeasureOptions): Promise<BenchResult> {
  const started: Participant[] = [];
  const start = async (participant: Promise<Participant>) => {
    started.push(await participant);
    return started[started.length - 1];
  };
  try {
    const ours = await start(startOurs(spec));
    const peer = torch ? await start(startTorch(spec)) : undefined;
    const yardstick = sgemm ? await start(startOurs({ ...spec, name: 'sgemm' })) : undefined;
    const steps = new Map<Participant, number>();
    for (const participant of started) {
      const long = isSd15(spec.name) && participant !== yardstick; // seconds a step
      const warm = median(await participant.round(long ? 1 : 2, { warmup: true }));
      steps.set(participant, Math.min(100, Math.max(long ? 1 : 3, Math.ceil(roundMs / warm))));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const participant of started) await participant.round(steps.get(participant)!);
      onRound?.(round);
    }
    return result(spec, await jobFlops(spec), ours, peer, yardstick);
  } finally {
    for (const participant of started) participant.stop();
  }
}

const sideOf = ({ times, peakRssKb, ready }: Participant): Side => ({
  median_ms: median(times),
  times_ms: times,
  peak_rss_kb: peakRssKb,
  parameters: ready.parameters,
  ...(ready.open_ms !== undefined && { open_ms: ready.open_ms }),
});

function result(
  spec: JobSpec,
  flops: number,
  ours: Participant,
  peer?: Participant,
  yardstick?: Participant,
): BenchResult {
  const own = sideOf(ours);
  const rate = flops / own.median_ms / 1e6;
  const best = yardstick && sgemmFlops / Math.min(...yardstick.times) / 1e6;
  const theirs = peer && sideOf(peer);
  return {
    ...spec,
    ...own,
    flops,
    cpu_ms: median(ours.cpuTimes),
    create_ms: ours.ready.create_ms ?? 0,
    gflops_per_second: rate,
    ...(best && { sgemm_gflops_per_second: best, sgemm_share: rate / best }),
    ...(theirs && {
      peer: { name: `torch ${peer.ready.torch}`, ...theirs },
      ratio: own.median_ms / theirs.median_ms,
      memory_ratio: own.peak_rss_kb / theirs.peak_rss_kb,
      ...(own.open_ms && theirs.open_ms && { open_ratio: own.open_ms / theirs.open_ms }),
    }),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
