import { figure, type Output, table } from '../output.js';
import { Progress } from '../progress.js';
import type { JobSpec } from './jobs.js';
import { median, roundMs } from './measure.js';
import { type Participant, startOurs } from './participant.js';

/** What is set against the plain model; PAG perturbs the last third of the blocks, its default. */
const settings = ['none', 'cfg=4', 'pag=2', 'cfg=4,pag=2'] as const;

/** What `bench guidance --json` prints for each setting. */
export interface GuidanceResult {
  readonly name: 'guidance';
  readonly guidance: string;
  readonly batch: number;
  readonly threads: number;
  /** Of a sampling step of a DiT. */
  readonly median_ms: number;
  readonly times_ms: readonly number[];
  /** Of the medians, to the plain model's. */
  readonly ratio: number;
}

/** Measures sampling steps under guidance in processes of their own, which take turns. */
export async function benchGuidance(
  output: Output,
  { batch, threads }: Pick<JobSpec, 'batch' | 'threads'>,
  rounds: number,
): Promise<void> {
  const started: Participant[] = [];
  const progress = new Progress(output, { label: 'guidance', total: rounds, lineSeconds: Number.POSITIVE_INFINITY });
  try {
    for (const guidance of settings) started.push(await startOurs({ name: 'dit-sample', batch, threads, guidance }));
    const warm: number[] = [];
    for (const participant of started) warm.push(median(await participant.round(2, { warmup: true })));
    for (let round = 1; round <= rounds; round++) {
      for (const [i, participant] of started.entries())
        await participant.round(Math.min(100, Math.max(3, Math.ceil(roundMs / warm[i]))));
      progress.update(round);
    }
  } finally {
    progress.stop();
    for (const participant of started) participant.stop();
  }
  const medians = started.map(({ times }) => median(times));
  const results = settings.map((guidance, i): GuidanceResult => {
    const ratio = medians[i] / medians[0];
    return { name: 'guidance', guidance, batch, threads, median_ms: medians[i], times_ms: started[i].times, ratio };
  });
  output.line(`guidance: a sampling step of the DiT, batch ${batch}, ${threads} threads; PAG in the last third`);
  const rows = results.map(({ guidance, median_ms, ratio }) => [
    `  ${guidance === 'none' ? 'plain' : guidance}`,
    `${figure(median_ms)} ms`,
    `${figure(ratio)}x`,
  ]);
  for (const line of table([['', 'median', 'of plain'], ...rows])) output.line(line);
  output.line('');
  for (const result of results) output.record(result);
}
