import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type NdArray, ndarray } from '../src/array/index.js';
import { writeSafetensors } from '../src/io/node/index.js';
import type { Adapter } from './adapter.js';
import { ReferenceCase } from './case.js';
import { brokenClaims } from './claims.js';
import { parity } from './cli.js';
import { findAdapter } from './groups/index.js';
import { type Result, runCase } from './run.js';
import { toleranceOf } from './tolerances.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'parity-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

interface Stored {
  readonly description?: unknown;
  readonly config?: unknown;
  readonly weights?: Record<string, NdArray>;
  readonly tensors?: Record<string, NdArray>;
}

/** Writes a case and returns its folder. */
async function store(path: string, { description = {}, config, weights, tensors }: Stored): Promise<string> {
  const folder = join(root, path);
  await mkdir(folder, { recursive: true });
  const json = typeof description === 'string' ? description : JSON.stringify(description);
  await writeFile(join(folder, 'case.json'), json);
  if (config) await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  if (weights) await writeSafetensors(join(folder, 'weights.safetensors'), weights);
  if (tensors) await writeSafetensors(join(folder, 'io.safetensors'), tensors);
  return folder;
}

const doubled = { 'in.x': ndarray([1, 2]), out: ndarray([2, 4]) };

/** Twice the input, as configured. */
const double: Adapter = (reference) => ({
  out: ndarray(
    [...(reference.input('x').data as Float32Array)].map((x) => x * Number(reference.config.factor ?? 2)),
    [2],
  ),
});

const run = (folder: string, adapter: Adapter = double): Promise<Result> => runCase(folder, async () => adapter);

describe('runCase', () => {
  it('passes what is reproduced, and reads the configuration', async () => {
    const folder = await store('B_blocks/a', { description: { cls: 'Double' }, tensors: doubled });
    expect(await run(folder)).toEqual({
      group: 'B_blocks',
      name: 'a',
      pass: true,
      error: 0,
      tolerance: 1e-5,
      reason: '',
    });
    const other = await store('B_blocks/b', { config: { factor: 2.1 }, tensors: doubled });
    expect(await run(other)).toMatchObject({ pass: false, error: expect.closeTo(0.05), tolerance: 1e-5 });
  });

  it.each<[string, Stored, Adapter, RegExp]>([
    [
      'a crash',
      { tensors: doubled },
      () => {
        throw new TypeError('no\n such shape');
      },
      /^no such shape$/,
    ],
    ['a missing output', { tensors: doubled }, () => ({}), /^out: missing from our outputs$/],
    ['several failures', { tensors: { ...doubled, 'out.b': ndarray([1]) } }, () => ({}), /and 1 more outputs/],
    ['a missing input', { tensors: { out: ndarray([1]) } }, double, /holds no 'in.x'/],
    [
      'a stray rejection',
      { tensors: doubled },
      (reference) => {
        Promise.reject(new Error('nobody waits'));
        return double(reference);
      },
      /^nobody waits$/,
    ],
    ['nothing to compare', { tensors: { 'in.x': ndarray([1, 2]) } }, double, /nothing to compare/],
    [
      'an output taken as given',
      { tensors: doubled },
      (reference) => ({ out: reference.given('out') }),
      /cannot be given/,
    ],
    ['a tensor the table promises', { description: { io: { 'out.b': [] } }, tensors: doubled }, double, /no 'out.b'/],
    ['lost weights', { description: { weights_from: 'gone' }, tensors: doubled }, double, /weights_from 'gone'/],
    ['a broken case.json', { description: '{ "group": ' }, double, /case\.json: not valid JSON/],
  ])("makes %s that case's failure", async (_, stored, adapter, reason) => {
    const result = await run(await store('B_blocks/a', stored), adapter);
    expect(result).toMatchObject({ group: 'B_blocks', name: 'a', pass: false });
    expect(result.reason).toMatch(reason);
  });

  it('does not compare what an adapter starts from', async () => {
    const tensors = { start: ndarray([3]), out: ndarray([3]) };
    const folder = await store('A/a', { tensors });
    expect(await run(folder, (reference) => ({ out: reference.given('start') }))).toMatchObject({ pass: true });
  });

  it('says so when nothing can run a case yet', async () => {
    const folder = await store('Z_future/a', { description: { source: { symbol: 'Oracle' } }, tensors: doubled });
    expect((await runCase(folder)).reason).toBe('not supported yet: Oracle');
  });
});

describe('ReferenceCase', () => {
  it('shares weights within a group and across groups', async () => {
    const weights = { w: ndarray([7]) };
    await store('C/base', { weights });
    for (const from of ['base', 'C/base']) {
      const folder = await store('C/user', { description: { weights_from: from } });
      expect((await ReferenceCase.load(folder)).weights.get('w')?.data).toEqual(Float32Array.of(7));
    }
    const abroad = await store('D/user', { description: { weights_from: 'C/base' } });
    expect((await ReferenceCase.load(abroad)).weights.has('w')).toBe(true);
  });

  it('is found by class, pipeline or symbol, and by what it says of itself', async () => {
    const load = async (description: unknown) => ReferenceCase.load(await store('folder/name', { description }));
    expect(await load({ cls: 'DiT', group: 'C_models', name: 'dit' })).toMatchObject({
      kind: 'DiT',
      group: 'C_models',
      name: 'dit',
    });
    expect((await load({ cls: null, pipeline: 'P' })).kind).toBe('P');
    expect((await load({ source: { symbol: 'A / B' } })).kind).toBe('A / B');
    expect(await load({})).toMatchObject({ kind: '(no class)', group: 'folder', name: 'name' });
  });

  it('checks what it reads from case.json', async () => {
    const reference = await ReferenceCase.load(await store('A/a', { description: { seed: 'x' } }));
    expect(() => reference.read(z.object({ seed: z.number() }))).toThrow('expected number');
  });
});

describe('findAdapter', () => {
  it('goes by the whole kind, then by its first word', async () => {
    expect(await findAdapter('H_systems', 'compute_loss_weighting_for_sd3')).toBeTypeOf('function');
    expect(await findAdapter('H_systems', 'compute_loss_weighting_for_sd3 / other')).toBeTypeOf('function');
    expect(await findAdapter('H_systems', 'compute_loss')).toBeUndefined();
    expect(await findAdapter('F_rng', 'toString')).toBeUndefined();
  });
});

describe('toleranceOf', () => {
  const tolerance = async (
    group: string,
    description: object,
    tensor: string,
    dtype: 'float32' | 'int64' = 'float32',
  ) => {
    const reference = await ReferenceCase.load(await store(`${group}/x`, { description }));
    return toleranceOf(reference, tensor, ndarray([0], [1], dtype)).tolerance;
  };

  it('goes by group, and by name for random numbers', async () => {
    expect(await tolerance('C_models', {}, 'out')).toBe(1e-4);
    expect(await tolerance('G_guiders', {}, 'out')).toBe(1e-5);
    expect(await tolerance('C_models', {}, 'ids', 'int64')).toBe(0);
    expect(await tolerance('F_rng', { cpu_capability: 'AVX2' }, 'seq_d.5.randn.16')).toBe(2e-6);
    expect(await tolerance('F_rng', { cpu_capability: 'AVX2' }, 'seq_d.1.rand.4')).toBe(0);
    expect(await tolerance('F_rng', { cpu_capability: 'AVX2' }, 'linear_5_4.bias')).toBe(0);
    expect(await tolerance('F_rng', { cpu_capability: 'NO AVX' }, 'linear_5_4.bias')).toBe(2 ** -23);
  });

  it('grants three times the distance from float64', async () => {
    const fp64 = { sample: { maxdiff: 1e-3, absmax: 2 } };
    expect(await tolerance('C_models', { fp64 }, 'out.sample')).toBeCloseTo(1.5e-3, 12);
    expect(await tolerance('C_models', { fp64 }, 'out.other')).toBe(1e-4);
  });
});

describe('claims', () => {
  const results = ['A/one', 'A/two', 'B/one'].map((path) => {
    const [group, name] = path.split('/');
    return { group, name, pass: path !== 'A/two', error: 0, tolerance: 0, reason: 'broken' };
  });

  it('hold for groups, prefixes and cases', () => {
    expect(brokenClaims(['B', 'A/o*', 'A/one'], results)).toEqual([]);
    expect(brokenClaims(['A', 'A/t*', 'A/two'], results)).toHaveLength(3);
    expect(brokenClaims(['A/two'], results)).toEqual(["claimed 'A/two', but A/two fails: broken"]);
  });

  it('break when no case answers to them', () => {
    expect(brokenClaims(['A/on', 'C'], results)).toHaveLength(2);
  });
});

describe('the command', () => {
  const call = async (...args: string[]) => {
    const out: string[] = [];
    const err: string[] = [];
    const code = await parity(args, { out: (line) => out.push(line), err: (line) => err.push(line) });
    return { code, out: out.join('\n'), err: err.join('\n') };
  };
  const weighting = (out: number[]): Stored => ({
    description: {
      group: 'H_systems',
      source: { symbol: 'compute_loss_weighting_for_sd3' },
      call: { weighting_scheme: 'sigma_sqrt' },
    },
    tensors: { 'in.sigmas': ndarray([0.5, 1]), out: ndarray(out) },
  });

  it('prints a table and counts', async () => {
    await store('H_systems/good', weighting([4, 1]));
    await store('H_systems/bad', weighting([4, 2]));
    const { code, out } = await call(root);
    expect(code).toBe(1);
    expect(out).toMatch(/H_systems\/bad\s+2\.5e-1\s+1\.0e-6 {2}FAIL {2}out: error 0\.250/);
    expect(out).toMatch(/H_systems\/good\s+0\s+1\.0e-6 {2}pass\n/);
    expect(out).toMatch(/H_systems\s+1 of 2 pass\nall\s+1 of 2 pass$/);
  });

  it('prints one JSON object and nothing else', async () => {
    const folder = await store('H_systems/good', weighting([4, 1]));
    const { code, out, err } = await call(folder, '--json');
    const good = { group: 'H_systems', name: 'good', pass: true, error: 0, tolerance: 1e-6, reason: '' };
    expect(JSON.parse(out)).toEqual({ passed: 1, failed: 0, cases: [good] });
    expect([code, err]).toEqual([0, '']);
  });

  it('fails only where success is claimed', async () => {
    await store('H_systems/good', weighting([4, 1]));
    await store('H_systems/bad', weighting([4, 2]));
    const file = join(root, 'claimed.json');
    const claim = async (claims: unknown) => {
      await writeFile(file, JSON.stringify(claims));
      return call(dirname(file), '--claimed', file);
    };
    expect((await claim(['H_systems/good'])).code).toBe(0);
    expect(await claim(['H_systems'])).toMatchObject({ code: 1, err: expect.stringContaining('H_systems/bad fails') });
    expect((await claim({ all: true })).code).toBe(2);
  });

  it('explains what it cannot use', async () => {
    expect(await call()).toMatchObject({ code: 2, err: expect.stringContaining('expected one DIR, got 0') });
    expect(await call(join(root, 'gone'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('gone: no such folder'),
    });
    expect(await call(root)).toMatchObject({ code: 2, err: expect.stringContaining('no case.json in it or below it') });
    expect(await call(root, '--loud')).toMatchObject({ code: 2, err: expect.stringContaining('--loud') });
    expect(await call('--help')).toMatchObject({ code: 0, out: expect.stringContaining('usage:') });
  });
});
