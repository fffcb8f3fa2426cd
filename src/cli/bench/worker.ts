import { createInterface } from 'node:readline';
import { createJob, isSd15, type JobSpec } from './jobs.js';

// Our side of `noisewright bench`, in a process of its own so that its peak memory is the job's. It speaks the
// protocol of bench/peers/torch_peer.py: {"ready": true, ...}, then for every line "round N" the times of N steps.
const spec = JSON.parse(process.argv[2]) as JobSpec;
const opened = performance.now();
const job = await createJob(spec);
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);

async function timed(): Promise<number> {
  const began = performance.now();
  await job.step();
  return performance.now() - began;
}

const first = await timed();
const openMs = performance.now() - opened;
const second = await timed();
say({
  ready: true,
  parameters: job.parameters,
  create_ms: Math.max(0, first - second),
  ...(isSd15(spec.name) && { open_ms: openMs }),
});
for await (const line of createInterface({ input: process.stdin })) {
  const count = Number(/^round (\d+)$/.exec(line)?.[1]);
  if (!count) throw new Error(`bench worker: expected "round N", got '${line}'`);
  const times: number[] = [];
  const before = process.cpuUsage();
  for (let i = 0; i < count; i++) times.push(await timed());
  const { user, system } = process.cpuUsage(before);
  say({ times_ms: times, cpu_ms: (user + system) / 1000 / count, peak_rss_kb: process.resourceUsage().maxRSS });
}
process.exit();
