import type { NdArray } from '../array/index.js';
import { blankRaster, imageGrid, paste, type Raster } from '../io/index.js';
import type { ImageQuality } from '../training/index.js';
import { type Chart, chartsSvg, type Series, svgRaster } from './chart.js';
import { gridScale, joined } from './generate.js';
import type { SweepResult } from './sweepStore.js';

export type Metric = keyof ImageQuality;

/** The results of a sweep as a table: a series in each row, a value of the axis in each column. */
export interface SweepTable {
  readonly axis: 'guidance' | 'steps';
  readonly values: readonly number[];
  readonly series: readonly string[];
  readonly cell: (series: string, value: number) => SweepResult;
  /** What each of the pictures of a cell shows. */
  readonly names: readonly string[];
}

const metricTitles: Readonly<Record<Metric, string>> = {
  fid: 'FID',
  kid: 'KID',
  precision: 'precision',
  recall: 'recall',
  accuracy: 'accuracy',
};
const axisTitles = { guidance: 'guidance scale', steps: 'steps' } as const;

/** Fidelity on the one side, diversity on the other: where both were asked for, one is drawn against the other. */
const tradeOffs: readonly { readonly fidelity: Metric; readonly diversity: Metric; readonly instead: boolean }[] = [
  { fidelity: 'accuracy', diversity: 'fid', instead: false },
  { fidelity: 'precision', diversity: 'recall', instead: true }, // not along the axis then
];

/** With more series, values beside the points would hide each other. */
const legible = 3;

/** Each metric along the axis, then fidelity against diversity. */
export function sweepCharts({ axis, values, series, cell }: SweepTable, metrics: readonly Metric[]): Chart[] {
  const lines = (point: (quality: ImageQuality, value: number) => Series['points'][number]): Series[] =>
    series.map((name) => ({ name, points: values.map((value) => point(cell(name, value).quality, value)) }));
  const pairs = tradeOffs.filter(
    ({ fidelity, diversity }) => axis === 'guidance' && metrics.includes(fidelity) && metrics.includes(diversity),
  );
  const elsewhere = pairs.flatMap(({ fidelity, diversity, instead }) => (instead ? [fidelity, diversity] : []));
  const along = metrics
    .filter((metric) => !elsewhere.includes(metric))
    .map((metric) => ({
      xTitle: axisTitles[axis],
      yTitle: metricTitles[metric],
      xTicks: values,
      ...(axis === 'steps' && { xScale: 'log' as const, ...(metric === 'fid' && { yScale: 'log' as const }) }),
      series: lines((quality, value) => ({ x: value, y: quality[metric] })),
    }));
  const against = pairs.map(({ fidelity, diversity }) => ({
    xTitle: metricTitles[fidelity],
    yTitle: metricTitles[diversity],
    series: lines((quality, value) => ({
      x: quality[fidelity],
      y: quality[diversity],
      ...(series.length <= legible && { label: String(value) }),
    })),
  }));
  return [...along, ...against];
}

/** About this many pictures across, and down. */
const across = 12;
const down = 10;

/** The same noise in every row: a column for each value of the axis, or several where there is room. */
export function sweepGrid({ axis, values, series, cell, names }: SweepTable): Raster {
  const wide = Math.min(names.length, Math.max(1, Math.floor(across / values.length)));
  const high = Math.min(Math.floor(names.length / wide), Math.max(1, Math.round(down / series.length)));
  const pictures: NdArray<'float32'>[] = [];
  const rowLabels: string[] = [];
  for (const name of series)
    for (let row = 0; row < high; row++) {
      const shown = Array.from({ length: wide }, (_, i) => row * wide + i);
      for (const value of values) pictures.push(...shown.map((i) => nth(cell(name, value).pictures, i)));
      const classes = wide === 1 ? names[row] : '';
      rowLabels.push(series.length === 1 ? classes : row === 0 ? name.replaceAll('+', '+ ') : '');
    }
  const short = axis === 'guidance' ? 's' : 'n';
  const columnLabels = values.flatMap((value) =>
    Array.from({ length: wide }, (_, i) => (i ? '' : `${short} = ${value}`)),
  );
  const images = joined(pictures);
  return imageGrid(images, values.length * wide, { rowLabels, columnLabels, scale: gridScale(images.shape[2]) });
}

/** Pictures and curves: beside each other where the pictures are tall, else one above the other. */
export async function sweepFigure(table: SweepTable, metrics: readonly Metric[]): Promise<Raster> {
  const curves = sweepCharts(table, metrics);
  const size = curves.length > 2 ? { width: 240, height: 160 } : { width: 300, height: 260 };
  const charts = await svgRaster(await chartsSvg(curves, size));
  const grid = sweepGrid(table);
  const gap = 16;
  const beside = 2 * grid.height > charts.height;
  const [x, y] = beside ? [grid.width + gap, 0] : [0, grid.height + gap];
  const figure = blankRaster(Math.max(grid.width, x + charts.width), Math.max(grid.height, y + charts.height), 3);
  paste(grid, figure, 0, 0);
  paste(charts, figure, x, y);
  return figure;
}

function nth({ data, shape: [count, ...shape] }: NdArray<'float32'>, n: number): NdArray<'float32'> {
  const size = data.length / count;
  return { dtype: 'float32', shape: [1, ...shape], data: data.slice(n * size, (n + 1) * size) };
}
