import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readRaster } from '../io/node/index.js';
import { type Chart, chartKind, chartsSvg, saveCharts, svgRaster } from './chart.js';
import { hasFonts, withPixelLetters } from './pixelLetters.js';

const chart: Chart = {
  title: 'one <title>',
  xTitle: 'guidance scale',
  yTitle: 'FID',
  xTicks: [0, 1.5, 8],
  series: ['cfg', 'pag'].map((name, k) => ({
    name,
    points: [0, 1.5, 8].map((x) => ({ x, y: 10 + k * x, label: `s ${x}` })),
  })),
};
const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text);

test('a chart has its titles, ticks, points and legend', async () => {
  const svg = await chartsSvg([chart], { legendTitle: 'guider' });
  expect(texts(svg)).toEqual(
    expect.arrayContaining([
      'one &lt;title&gt;',
      'guidance scale',
      'FID',
      '0',
      '1.5',
      '8',
      '10',
      's 1.5',
      'guider',
      'cfg',
      'pag',
    ]),
  );
  expect(svg.match(/aria-roledescription="line mark container"/g)).toHaveLength(2);
});

test('one series needs no legend; charts stand side by side', async () => {
  const single = { ...chart, series: [chart.series[0]] };
  expect(texts(await chartsSvg([single]))).not.toContain('cfg');
  const width = async (charts: Chart[], columns: number) =>
    Number(/width="(\d+)"/.exec(await chartsSvg(charts, { columns }))![1]);
  expect(await width([single, single], 2)).toBeGreaterThan(1.8 * (await width([single, single], 1)));
});

test('logarithmic scales', async () => {
  const log: Chart = {
    ...chart,
    xScale: 'log',
    yScale: 'log',
    xTicks: [1, 2, 4],
    series: [{ name: 'a', points: [1, 2, 4].map((x) => ({ x, y: x })) }],
  };
  const svg = await chartsSvg([log]);
  const xs = [...svg.matchAll(/<path transform="translate\(([\d.]+),[\d.]+\)" d="[^"]+" fill="#4c78a8"/g)].map(
    ([, x]) => Number(x),
  );
  const [a, b, c] = xs;
  expect(b - a).toBeCloseTo(c - b, 3);
});

test('written as SVG or PNG', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const [svg, png] = ['a.svg', 'a.png'].map((name) => join(folder, name));
  await saveCharts(svg, [chart]);
  await saveCharts(png, [chart]);
  const text = await readFile(svg, 'utf8');
  const width = Number(/width="(\d+)"/.exec(text)![1]);
  const raster = await readRaster(png);
  expect(raster.width).toBe(Math.round(1.5 * width));
  expect(new Set(raster.data).size).toBeGreaterThan(50);
  expect((await svgRaster(text, 1)).width).toBe(width);
  expect(() => chartKind('a.gif')).toThrow('--out: a.gif must end in .png or .svg');
  await rm(folder, { recursive: true });
});

test('without fonts, letters become shapes', async () => {
  const text = '<text text-anchor="end" transform="translate(9,9)" font-size="20px" fill="#123">&lt;I</text>';
  const shapes = withPixelLetters(`<svg>${text}</svg>`);
  expect(shapes).toMatch(/^<svg><path transform="translate\(9,9\) scale\(2\) translate\(-11,-7\)" fill="#123" d="M\d/);
  const svg = await chartsSvg([chart]);
  expect(texts(withPixelLetters(svg))).toEqual([]);
  expect(await hasFonts()).toBeTypeOf('boolean');
});
