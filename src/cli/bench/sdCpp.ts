import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { access, constants, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JobSpec } from './jobs.js';
import { type Contestant, killed } from './participant.js';

export interface SdCppFiles {
  /** The command-line program of stable-diffusion.cpp: `sd`, since 2025 `sd-cli`. */
  readonly binary: string;
  /** What it opens: a single file, or a folder in diffusers' layout. */
  readonly model: string;
}

/** Why stable-diffusion.cpp cannot be measured with these files; undefined when it can. */
export async function sdCppProblem({ binary, model }: SdCppFiles): Promise<string | undefined> {
  if (!(await stat(binary).catch(() => undefined))?.isFile()) return `${binary} is no file`;
  if (
    !(await access(binary, constants.X_OK).then(
      () => true,
      () => false,
    ))
  )
    return `${binary} is not executable`;
  return (await stat(model).catch(() => undefined)) ? undefined : `${model} is not there`;
}

/**
 * stable-diffusion.cpp (github.com/leejet/stable-diffusion.cpp) as a peer. It keeps nothing between pictures, so every
 * round is a process of its own: it opens the model, makes one step that does not count, and then those that do. Steps
 * are timed by what it prints, to 10 ms.
 */
export class SdCpp implements Contestant {
  readonly times: number[] = [];
  readonly cpuTimes: readonly number[] = [];
  peakRssKb = 0;
  readonly ready: Contestant['ready'];
  #child: ChildProcess | undefined;

  /** @param parameters of the model, which are those of the other side. */
  constructor(
    private readonly spec: JobSpec,
    private readonly files: SdCppFiles,
    parameters: number,
  ) {
    this.ready = { ready: true, parameters, peer: 'stable-diffusion.cpp' };
  }

  /** @throws Error with what it said, when it fails or prints no times. */
  async round(steps: number, { warmup = false } = {}): Promise<readonly number[]> {
    if (warmup) return [0]; // each round has its own
    const folder = await mkdtemp(join(tmpdir(), 'noisewright-sd-'));
    try {
      const decodes = this.spec.name === 'sd15-vae-decode';
      const said = await this.#run(decodes ? 1 : steps + 1, join(folder, 'picture.png'));
      const times = decodes ? decodeTimes(said) : stepTimes(said, steps + 1).slice(1);
      this.times.push(...times);
      return times;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  stop(): void {
    this.#child?.kill();
  }

  #run(steps: number, out: string): Promise<string> {
    const side = String(8 * (this.spec.size ?? 64));
    const flags = {
      '-m': this.files.model,
      '-p': 'a cat',
      '-o': out,
      '-W': side,
      '-H': side,
      '-s': '0',
      '-t': String(this.spec.threads),
      '--steps': String(steps),
      '--cfg-scale': '1',
      '--sampling-method': 'euler',
    };
    const child = spawn(this.files.binary, Object.entries(flags).flat(), { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (text) => {
        said += text;
      });
    const watch = setInterval(() => {
      this.peakRssKb = Math.max(this.peakRssKb, peakOf(child.pid));
    }, 50);
    return new Promise<string>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) =>
        code === 0
          ? resolve(said)
          : reject(new Error(`bench: ${this.files.binary} ${killed(code, signal)}: ${lastWords(said)}`)),
      );
    }).finally(() => clearInterval(watch));
  }
}

/** The largest memory that a process has had, in kilobytes; 0 where the system does not say. */
function peakOf(pid: number | undefined): number {
  try {
    return Number(/VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/**
 * Milliseconds of each sampling step, from its progress: `\r  |====>   | 2/4 - 2.51s/it`, or `1.20it/s` for fast ones.
 * Loading prints such lines, too, with other totals.
 */
export function stepTimes(said: string, steps: number): number[] {
  const sampling = said.slice(Math.max(0, said.search(/sampling using|generating image/)));
  const found = [...sampling.matchAll(/\b(\d+)\/(\d+) - ([\d.]+)(s\/it|it\/s)/g)];
  const times = new Map<number, number>();
  for (const [, step, total, value, unit] of found)
    if (Number(total) === steps && !times.has(Number(step)))
      times.set(Number(step), 1000 * (unit === 's/it' ? Number(value) : 1 / Number(value)));
  if (times.size !== steps || [...times.values()].some((time) => !(time > 0 && Number.isFinite(time))))
    throw new Error(
      `bench: stable-diffusion.cpp printed the times of ${times.size} steps, expected ${steps} such as '1/${steps} - 2.50s/it'; its last words: ${lastWords(said)}`,
    );
  return [...times].sort(([a], [b]) => a - b).map(([, time]) => time);
}

/** Milliseconds of each decoding: `latent 1 decoded, taking 12.34s`. */
export function decodeTimes(said: string): number[] {
  const times = [...said.matchAll(/latent \d+ decoded, taking ([\d.]+)s/g)].map(
    ([, seconds]) => 1000 * Number(seconds),
  );
  if (times.length === 0)
    throw new Error(
      `bench: stable-diffusion.cpp printed no 'latent 1 decoded, taking 1.23s'; its last words: ${lastWords(said)}`,
    );
  return times;
}

const lastWords = (said: string): string =>
  said
    .trim()
    .split(/[\r\n]+/)
    .slice(-3)
    .join(' ') || 'none';
