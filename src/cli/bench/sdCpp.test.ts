import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { JobSpec } from './jobs.js';
import { decodeTimes, SdCpp, sdCppProblem, stepTimes } from './sdCpp.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sdcpp-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** What the program prints for three steps, of version 2024 and 2026. */
const loading = '\r  |=====>    | 1130/1131 - 500.00it/s\r  |=====| 1131/1131 - 510.00it/s\n';
const steps = '\r  |==>  | 1/3 - 4.00s/it\r  |====>  | 2/3 - 2.50s/it\r  |======| 3/3 - 1.25it/s\n';
const printed = {
  'of 2024': `${loading}[INFO ] stable-diffusion.cpp:1164 - sampling using Euler method\n${steps}[INFO ] stable-diffusion.cpp:1220 - latent 1 decoded, taking 12.34s\n`,
  'of 2026':
    `\r  |####| 3/3 - 1.20GB/s\x1b[K\n[INFO ] generating image: 1/1 - seed 0\n${steps.replaceAll('/it', '/it\x1b[K')}` +
    '[INFO ] latent 1 decoded, taking 12.34s\n',
};

/** A program that says this; `$out` stands for what it is to write. */
async function stub(name: string, said: string, code = 0): Promise<string> {
  const path = join(folder, name);
  await writeFile(join(folder, `${name}.txt`), said);
  await writeFile(path, `#!/bin/sh\necho "$@" > ${path}.args\ncat ${path}.txt\nsleep 0.2\nexit ${code}\n`);
  await chmod(path, 0o755);
  return path;
}

const spec: JobSpec = { name: 'sd15-step', batch: 1, threads: 2 };

describe('stable-diffusion.cpp', () => {
  it.each(Object.entries(printed))('tells its times, version %s', (_, said) => {
    expect(stepTimes(said, 3)).toEqual([4000, 2500, 800]);
    expect(decodeTimes(said)).toEqual([12340]);
  });

  it('is run for a step more than is counted', async () => {
    const peer = new SdCpp(spec, { binary: await stub('sd', printed['of 2024']), model: folder }, 7);
    expect(await peer.round(1, { warmup: true })).toEqual([0]);
    expect(await peer.round(2)).toEqual([2500, 800]);
    expect([peer.times, peer.ready.parameters]).toEqual([[2500, 800], 7]);
    if (process.platform === 'linux') expect(peer.peakRssKb).toBeGreaterThan(0);
    const decoding = new SdCpp({ ...spec, name: 'sd15-vae-decode' }, { binary: join(folder, 'sd'), model: folder }, 7);
    expect(await decoding.round(1)).toEqual([12340]);
  });

  it('says what is missing, and what came instead of times', async () => {
    const binary = await stub('other', 'error: unknown argument: --steps\n', 1);
    expect(await sdCppProblem({ binary, model: folder })).toBeUndefined();
    expect(await sdCppProblem({ binary: join(folder, 'none'), model: folder })).toMatch(/none is no file/);
    expect(await sdCppProblem({ binary: join(folder, 'other.txt'), model: folder })).toMatch(/is not executable/);
    expect(await sdCppProblem({ binary, model: join(folder, 'none') })).toMatch(/none is not there/);
    const peer = new SdCpp(spec, { binary, model: folder }, 7);
    await expect(peer.round(1)).rejects.toThrow(/other ended with code 1: error: unknown argument/);
    expect(() => stepTimes(printed['of 2024'], 4)).toThrow(/times of 0 steps, expected 4 such as '1\/4 - 2.50s\/it'/);
    expect(() => decodeTimes('hello')).toThrow(/no 'latent 1 decoded.*hello/);
  });
});
