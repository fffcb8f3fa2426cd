import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../package.js';
import type { JobSpec } from './jobs.js';

interface Ready {
  readonly ready: true;
  readonly parameters: number;
  readonly create_ms?: number;
  readonly open_ms?: number;
  /** Of a peer: what it is called. */
  readonly peer?: string;
}

/** One side of a measurement. */
export interface Contestant {
  readonly ready: Ready;
  /** Milliseconds of each step that counts. */
  readonly times: readonly number[];
  /** Processor time per step of each round, where it is known. */
  readonly cpuTimes: readonly number[];
  readonly peakRssKb: number;
  round(steps: number, options?: { warmup?: boolean }): Promise<readonly number[]>;
  stop(): void;
}

/** How a process ended. */
export const killed = (code: number | null, signal: string | null): string =>
  signal ? `was ended by ${signal}` : `ended with code ${code}`;

interface Round {
  readonly times_ms: readonly number[];
  /** Of all threads, per step; ours only. */
  readonly cpu_ms?: number;
  readonly peak_rss_kb: number;
}

/** A process that does rounds of steps when it is told to, and is idle in between. */
export class Participant implements Contestant {
  readonly times: number[] = [];
  /** Processor time per step of each round. */
  readonly cpuTimes: number[] = [];
  peakRssKb = 0;

  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
    private readonly errors: () => string,
    readonly ready: Ready,
  ) {}

  /** Starts one and waits until its job is set up. @throws Error with the end of what it wrote to stderr. */
  static async start(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Participant> {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
    let errors = '';
    child.on('error', (error) => {
      errors += error.message;
    });
    child.stderr.on('data', (text) => {
      errors += text;
    });
    child.stdin.on('error', () => {}); // that it ended is seen where its answer is awaited
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const said = () => errors.trim().split('\n').slice(-3).join(' ') || 'it ended without a word';
    try {
      return new Participant(child, lines, said, await nextLine<Ready>(lines, said));
    } catch (error) {
      child.kill();
      throw error;
    }
  }

  /** One round, remembered in `times` unless it only warms up. */
  async round(steps: number, { warmup = false } = {}): Promise<readonly number[]> {
    this.child.stdin!.write(`round ${steps}\n`);
    const { times_ms: times, cpu_ms: cpu, peak_rss_kb: peak } = await nextLine<Round>(this.lines, this.errors);
    if (!warmup) this.times.push(...times);
    if (!warmup && cpu !== undefined) this.cpuTimes.push(cpu);
    this.peakRssKb = peak;
    return times;
  }

  stop(): void {
    this.child.kill();
  }
}

async function nextLine<T>(lines: AsyncIterator<string>, errors: () => string): Promise<T> {
  const { value, done } = await lines.next();
  if (done) {
    await new Promise(setImmediate); // its last words may still be on their way
    throw new Error(`bench: a process failed: ${errors()}`);
  }
  return JSON.parse(value as string) as T;
}

export const startOurs = (spec: JobSpec): Promise<Participant> =>
  Participant.start(process.execPath, [fileURLToPath(new URL('./worker.js', import.meta.url)), JSON.stringify(spec)]);

const python = '/usr/bin/python3';
const peerScript = join(packageRoot, 'bench', 'peers', 'torch_peer.py');

/** Why PyTorch cannot be measured here; undefined when it can. */
export function torchMissing(): string | undefined {
  if (!existsSync(peerScript)) return `${peerScript} is missing (it comes with the repository, not with the package)`;
  const { status } = spawnSync(python, ['-c', 'import torch'], { stdio: 'ignore' });
  return status === 0
    ? undefined
    : `${python} has no torch (Debian: apt-get install python3-torch libopenblas0-pthread)`;
}

/**
 * How PyTorch is run. Debian's has two pools of threads, OpenMP's and OpenBLAS's, and OpenMP's spin while they wait: where
 * there are as many cores as threads, products wait for a core. `torch-passive` lets OpenMP's sleep.
 */
export const torchPeers = {
  torch: {},
  'torch-passive': { OMP_WAIT_POLICY: 'PASSIVE' },
} as const satisfies Record<string, NodeJS.ProcessEnv>;
export type TorchPeer = keyof typeof torchPeers;

/** PyTorch with the same architecture, and OpenBLAS's best kernels. */
export function startTorch(
  { name, batch, threads, size, width, depth, model }: JobSpec,
  peer: TorchPeer,
): Promise<Participant> {
  const dit = name.startsWith('dit');
  const config = {
    ...(size && { size }),
    ...(width && { [dit ? 'dim' : 'base']: width }),
    ...(depth && { [dit ? 'depth' : 'layers']: depth }),
  };
  const flags = { '--batch': batch, '--threads': threads, '--config': JSON.stringify(config), '--layout': 'diffusers' };
  const args = [
    ...Object.entries(flags).flatMap(([flag, value]) => [flag, String(value)]),
    ...(model ? ['--model', model] : []),
  ];
  return Participant.start(python, [peerScript, name, ...args], {
    ...(hasAvx512() && { OPENBLAS_CORETYPE: 'COOPERLAKE' }),
    ...torchPeers[peer],
  });
}

function hasAvx512(): boolean {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8').includes('avx512f');
  } catch {
    return false;
  }
}
