import { expect, test } from 'vitest';
import { zeros } from '../array/index.js';
import { type SweepTable, sweepCharts, sweepGrid } from './sweepFigure.js';

const table = (axis: SweepTable['axis'], values: number[], series: string[]): SweepTable => ({
  axis,
  values,
  series,
  names: Array.from({ length: 12 }, (_, i) => `class ${i % 10}`),
  cell: (name, value) => ({
    quality: { fid: value, kid: 0, precision: 0.5, recall: 1 / (1 + value), accuracy: name.length },
    pictures: zeros([12, 1, 32, 32]),
  }),
});
const titles = (t: SweepTable, ...metrics: Parameters<typeof sweepCharts>[1]) =>
  sweepCharts(t, metrics).map(({ xTitle, yTitle }) => `${yTitle}/${xTitle}`);

test('metrics along the axis, fidelity against diversity', () => {
  const guided = table('guidance', [0, 1, 8], ['']);
  expect(titles(guided, 'fid')).toEqual(['FID/guidance scale']);
  expect(titles(guided, 'fid', 'accuracy', 'precision', 'recall')).toEqual([
    'FID/guidance scale',
    'accuracy/guidance scale',
    'FID/accuracy',
    'recall/precision',
  ]);
  expect(titles(guided, 'recall')).toEqual(['recall/guidance scale']);
  expect(sweepCharts(guided, ['precision', 'recall'])[0].series).toEqual([
    {
      name: '',
      points: [
        { x: 0.5, y: 1, label: '0' },
        { x: 0.5, y: 0.5, label: '1' },
        { x: 0.5, y: 1 / 9, label: '8' },
      ],
    },
  ]);
  expect(titles(table('steps', [5, 10], ['a', 'bb']), 'fid', 'accuracy')).toEqual(['FID/steps', 'accuracy/steps']);
  expect(sweepCharts(table('steps', [5, 10], ['a', 'bb']), ['fid'])[0]).toMatchObject({
    xScale: 'log',
    series: [
      { name: 'a' },
      {
        name: 'bb',
        points: [
          { x: 5, y: 5 },
          { x: 10, y: 10 },
        ],
      },
    ],
  });
});

test('the grid has a column for each value, more where there is room', () => {
  const sizes = (t: SweepTable) => {
    const { width, height } = sweepGrid(t);
    return [Math.floor(width / 66), Math.floor(height / 66)]; // 64 pixels and a gap; labels take less than a picture
  };
  expect(sizes(table('guidance', [0, 1, 2, 3, 4, 5, 6, 8], ['']))).toEqual([8, 10]);
  expect(sizes(table('guidance', [0, 1, 2, 3, 4, 5, 6, 8], ['a', 'b']))).toEqual([8, 10]);
  expect(
    sizes(
      table(
        'steps',
        [5, 10, 20],
        Array.from({ length: 7 }, (_, i) => `s${i}`),
      ),
    ),
  ).toEqual([12, 7]);
});
