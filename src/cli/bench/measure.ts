import { isSd15, type JobSpec, jobFlops, sgemmFlops } from './jobs.js';
import { type Contestant, startOurs, startTorch, type TorchPeer } from './participant.js';
import { SdCpp, type SdCppFiles } from './sdCpp.js';

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
  /** Decoding in tiles of so many pixels, in a process of its own: its memory to that of the whole. */
  readonly tiled?: { readonly tile: number; readonly time_ms: number; readonly peak_rss_kb: number };
  readonly tiled_memory_ratio?: number;
}

export interface MeasureOptions {
  readonly rounds: number;
  /** Also measure PyTorch, or stable-diffusion.cpp. */
  readonly peer?: TorchPeer | SdCppFiles;
  /** Measure the machine's own rate, too. */
  readonly sgemm: boolean;
  onRound?(round: number): void;
}

/** Pixels of a side, of a picture of 512. */
const TILE = 256;

/** Milliseconds that a round should take at least. */
export const roundMs = 1000;

/**
 * Measures a job in processes of their own, which take turns: ours, the peer's, ours ... Warm-up rounds come first and
 * set how many steps a round has.
 */
export async function measure(
  spec: JobSpec,
  { rounds, peer: kind, sgemm, onRound }: MeasureOptions,
): Promise<BenchResult> {
  const started: Contestant[] = [];
  const start = async (participant: Contestant | Promise<Contestant>) => {
    started.push(await participant);
    return started[started.length - 1];
  };
  try {
    const ours = await start(startOurs(spec));
    const peer =
      kind &&
      (await start(typeof kind === 'string' ? startTorch(spec, kind) : new SdCpp(spec, kind, ours.ready.parameters)));
    const yardstick = sgemm ? await start(startOurs({ ...spec, name: 'sgemm' })) : undefined;
    const steps = new Map<Contestant, number>();
    for (const participant of started) {
      const long = isSd15(spec.name) && participant !== yardstick; // seconds a step
      const warm = median(await participant.round(long ? 1 : 2, { warmup: true }));
      steps.set(participant, Math.min(100, Math.max(long ? 1 : 3, Math.ceil(roundMs / warm))));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const participant of started) await participant.round(steps.get(participant)!);
      onRound?.(round);
    }
    for (const participant of started) participant.stop(); // tiles are for machines with little memory
    const tiled = spec.name === 'sd15-vae-decode' ? await start(startOurs({ ...spec, tile: TILE })) : undefined;
    await tiled?.round(1);
    return result(spec, await jobFlops(spec), ours, peer, yardstick, tiled);
  } finally {
    for (const participant of started) participant.stop();
  }
}

const sideOf = ({ times, peakRssKb, ready }: Contestant): Side => ({
  median_ms: median(times),
  times_ms: times,
  peak_rss_kb: peakRssKb,
  parameters: ready.parameters,
  ...(ready.open_ms !== undefined && { open_ms: ready.open_ms }),
});

function result(
  spec: JobSpec,
  flops: number,
  ours: Contestant,
  peer?: Contestant,
  yardstick?: Contestant,
  tiled?: Contestant,
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
      peer: { name: peer.ready.peer!, ...theirs },
      ratio: own.median_ms / theirs.median_ms,
      memory_ratio: own.peak_rss_kb / theirs.peak_rss_kb,
      ...(own.open_ms && theirs.open_ms && { open_ratio: own.open_ms / theirs.open_ms }),
    }),
    ...(tiled && {
      tiled: { tile: TILE, time_ms: median(tiled.times), peak_rss_kb: tiled.peakRssKb },
      tiled_memory_ratio: tiled.peakRssKb / own.peak_rss_kb,
    }),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
