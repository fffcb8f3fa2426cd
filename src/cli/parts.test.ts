import { expect, test } from 'vitest';
import { VariancePreservingFlow } from '../pipelines/index.js';
import { ddim, flowMatchEuler, type Sampler } from '../samplers/index.js';
import { createJob, jobFlops } from './bench/jobs.js';
import { median } from './bench/measure.js';
import { scalingCharts } from './bench/scaling.js';
import { evenly } from './generate.js';
import { duration, figure, Output, shellWord, sparkline, table } from './output.js';
import { Progress } from './progress.js';
import { self } from './self.js';
import { parseClasses, parseGuidance, samplerNamed, samplerNameOf, samplerNames } from './values.js';

test('classes by number and by name', () => {
  const names = ['t-shirt', 'ankle boot', 'bag'];
  expect(parseClasses('all', names, 3)).toEqual([0, 1, 2]);
  expect(parseClasses('2,0,2', names, 3)).toEqual([2, 0, 2]);
  expect(parseClasses('Ankle-Boot, tshirt,2', names, 3)).toEqual([1, 0, 2]);
  expect(() => parseClasses('hat', names, 3)).toThrow("names (t-shirt, ankle boot, bag), got 'hat'");
  expect(() => parseClasses('3', [], 3)).toThrow("numbers 0..2, got '3'");
});

test('guidance as a number, by name, with interval and rescale', () => {
  const branches = (text: string, index: number) =>
    parseGuidance(text)
      .branches({ index, total: 10, timestep: 0 })
      .map(({ name }) => name);
  expect(branches('3', 0)).toEqual(['positive', 'negative']);
  expect(branches('1', 0)).toEqual(['positive']);
  expect(branches('none', 0)).toEqual(['positive']);
  expect(branches('0', 0)).toEqual(['negative']);
  expect(branches('cfg=3,interval=0.5:1', 0)).toEqual(['positive']);
  expect(branches('cfg=3,interval=0.5:1', 5)).toEqual(['positive', 'negative']);
  expect(parseGuidance('cfg=3,rescale=0.7').inputs({ index: 0, total: 1, timestep: 0 })).toEqual([3, 0.7]);
  for (const wrong of ['', 'cfg', 'cfg=', '3,4', 'cfg=3,interval=1', 'cfg=3,rescale=2'])
    expect(() => parseGuidance(wrong), wrong).toThrow('--guidance: ');
});

test('another sampler keeps the noise schedule and the prediction', () => {
  const own = ddim({ betaSchedule: 'squaredcos_cap_v2', predictionType: 'v_prediction' }) as Sampler;
  for (const name of ['ddpm', 'euler', 'dpmpp-2m'] as const) {
    const sampler = samplerNamed(name, own);
    expect(samplerNameOf(sampler)).toBe(name);
    expect(sampler.config).toMatchObject({ betaSchedule: 'squaredcos_cap_v2', predictionType: 'v_prediction' });
  }
  expect(samplerNamed('ddim', own)).toBe(own);
  const flow = flowMatchEuler() as Sampler;
  for (const name of samplerNames) expect(samplerNameOf(samplerNamed(name, flow))).toBe(name);
  expect(samplerNamed('dpmpp-2m', flow).predictionType).toBe('flow');
  for (const name of ['euler', 'heun', 'kdpm2'] as const)
    expect(samplerNamed(name, flow).config).toMatchObject(VariancePreservingFlow.betas);
  expect(samplerNamed('ddim', flow).config).toMatchObject({
    predictionType: 'v_prediction',
    timestepSpacing: 'trailing',
    clipSample: false,
  });
  expect(() => samplerNamed('flow-heun', own)).toThrow('this model predicts v, not flow; use ddim or dpmpp-2m');
});

test('figures, durations, words, bars and tables for people', () => {
  expect([1234.5, 12.345, 0.012345, 0.000012345, 0].map(figure)).toEqual(['1235', '12.3', '0.0123', '1.2e-5', '0']);
  expect([0.4, 61, 3661].map(duration)).toEqual(['0s', '1m 01s', '1h 01m']);
  expect(['runs/a', 'my run', "it's"].map(shellWord)).toEqual(['runs/a', "'my run'", "'it'\\''s'"]);
  expect(sparkline([0, 1, 2])).toBe('▁▅█');
  expect(sparkline([5, 5])).toBe('▁▁');
  expect(
    table([
      ['', 'ms'],
      ['ours', '10'],
      ['x', '1'],
    ]),
  ).toEqual(['      ms', 'ours  10', 'x      1']);
  expect(evenly(30, 10)).toEqual([3, 6, 9, 12, 15, 18, 21, 24, 27, 30]);
});

test('commands are suggested as they were called', () => {
  expect(self({ npm_command: 'exec' }, '/a/main.js')).toBe('npx noisewright');
  expect(self({}, '/usr/bin/noisewright')).toBe('noisewright');
  expect(self({}, `${process.cwd()}/dist/main.js`)).toBe('node dist/main.js');
});

test('progress without a terminal is a line now and then, and none for machines', () => {
  const lines: string[] = [];
  const sink = { out: (line: string) => lines.push(line), err: () => {}, interactive: false };
  const progress = new Progress(new Output(sink, false), { label: 'training', total: 4, lineSeconds: -1 });
  progress.update(1, { loss: 0.5, images: 8 });
  progress.stop();
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^training: 1\/4 {2}loss 0.5000 {2}\S+ images\/s/);
  new Progress(new Output(sink, true), { label: 'training', total: 4, lineSeconds: -1 }).update(1);
  expect(lines).toHaveLength(1);
});

test('jobs of the benchmark: operations by hand, and a step that runs', async () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  const spec = { name: 'dit-forward', batch: 2, threads: 1, size: 4, width: 12, depth: 1 } as const;
  // 2 pictures of 4 tokens: patches, q k v out and two linears of the MLP, scores and their sums, the head.
  const tokens = 2 * 8 * (4 * 12 + 4 * 12 * 12 + 2 * 12 * 48 + 2 * 4 * 12 + 12 * 4);
  const conditions = 2 * 2 * (256 * 12 + 12 * 12 + 12 * 72 + 12 * 24);
  expect(await jobFlops(spec)).toBe(tokens + conditions);
  expect(await jobFlops({ ...spec, name: 'dit-train' })).toBeGreaterThan(2.5 * (await jobFlops(spec)));
  for (const name of ['dit-forward', 'dit-train'] as const) {
    const { parameters, step } = await createJob({ ...spec, name });
    expect(parameters).toBeGreaterThan(2000);
    await step();
    await step();
  }
});

test('growth is drawn as time and memory along each axis, a line for each job', () => {
  const at = (name: string, axis: 'batch' | 'depth', value: number) => ({
    name,
    axis,
    value,
    cpu_ms: 2 * value,
    peak_rss_kb: 4096,
  });
  const charts = scalingCharts([at('a', 'batch', 8), at('a', 'batch', 4), at('b', 'batch', 8), at('b', 'depth', 1)]);
  expect(charts.map(({ yTitle, xTitle }) => `${yTitle} ${xTitle}`)).toEqual(
    ['processor time, ms', 'memory, MiB'].flatMap((y) =>
      ['batch', 'pixels a side', 'width', 'depth'].map((x) => `${y} ${x}`),
    ),
  );
  expect(charts[0]).toMatchObject({
    xTicks: [4, 8],
    series: [
      {
        name: 'a',
        points: [
          { x: 8, y: 16 },
          { x: 4, y: 8 },
        ],
      },
      { name: 'b', points: [{ x: 8, y: 16 }] },
    ],
  });
  expect(charts[7].series[1].points).toEqual([{ x: 1, y: 4 }]);
});
