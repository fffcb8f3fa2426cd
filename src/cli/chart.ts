import { extname } from 'node:path';
import type { GroupMark, Mark, Scale, Spec } from 'vega';
import type { Raster } from '../io/index.js';
import { readRaster, savePng, writeFileAtomic } from '../io/node/index.js';
import { UsageError } from './exitCodes.js';
import { hasFonts, withPixelLetters } from './pixelLetters.js';

export interface Point {
  readonly x: number;
  readonly y: number;
  /** Written beside the point. */
  readonly label?: string;
}

export interface Series {
  /** The same in every chart of a figure: one colour, one line of the legend. */
  readonly name: string;
  /** Joined by a line in this order. */
  readonly points: readonly Point[];
}

export interface Chart {
  readonly title?: string;
  readonly xTitle: string;
  readonly yTitle: string;
  readonly xScale?: 'linear' | 'log';
  readonly yScale?: 'linear' | 'log';
  /** Where the axis is labelled; default: at round numbers. */
  readonly xTicks?: readonly number[];
  readonly series: readonly Series[];
}

export interface FigureOptions {
  /** Charts in a row; default 2. */
  readonly columns?: number;
  /** Of one chart without its labels, in pixels; default 260 x 180. */
  readonly width?: number;
  readonly height?: number;
  readonly legendTitle?: string;
}

/** Line charts side by side on white, with one legend where there are several series. @returns an SVG document. */
export async function chartsSvg(charts: readonly Chart[], options: FigureOptions = {}): Promise<string> {
  const { columns = 2, width = 260, height = 180, legendTitle } = options;
  const names = [...new Set(charts.flatMap(({ series }) => series.map(({ name }) => name)))];
  const spec: Spec = {
    background: 'white',
    padding: 8,
    layout: { columns, padding: { row: 24, column: 30 }, align: 'all' },
    scales: [
      {
        name: 'colour',
        type: 'ordinal',
        domain: names,
        range: { scheme: names.length > 10 ? 'tableau20' : 'tableau10' },
      },
      { name: 'shape', type: 'ordinal', domain: names, range: shapes },
    ],
    legends:
      names.length > 1
        ? [
            {
              stroke: 'colour',
              shape: 'shape',
              orient: 'bottom',
              columns: 2 * columns,
              labelLimit: 300,
              title: legendTitle,
              symbolStrokeWidth: 2,
            },
          ]
        : [],
    marks: charts.map((chart) => group(chart, width, height)),
    config: { axis: { labelFontSize: 11, titleFontSize: 12, titleFontWeight: 'normal', gridColor: '#e4e4e4' } },
  };
  const { parse, View } = await import('vega'); // half a second, which other commands need not spend
  return new View(parse(spec), { renderer: 'none' }).toSVG();
}

const shapes = ['circle', 'square', 'triangle-up', 'diamond', 'triangle-down', 'cross'];

function group(chart: Chart, width: number, height: number): GroupMark {
  const { title, xTitle, yTitle, xScale = 'linear', yScale = 'linear', xTicks, series } = chart;
  const values = series.flatMap(({ name, points }) => points.map((point) => ({ ...point, name })));
  const place = { x: { scale: 'x', field: 'x' }, y: { scale: 'y', field: 'y' } };
  const colour = { scale: 'colour', field: 'name' };
  const lines: Mark = {
    type: 'group',
    from: { facet: { name: 'of', data: 'points', groupby: 'name' } },
    marks: [
      {
        type: 'line',
        from: { data: 'of' },
        encode: { enter: { ...place, stroke: colour, strokeWidth: { value: 1.5 } } },
      },
    ],
  };
  const dots: Mark = {
    type: 'symbol',
    from: { data: 'points' },
    encode: { enter: { ...place, fill: colour, size: { value: 36 }, shape: { scale: 'shape', field: 'name' } } },
  };
  const labels: Mark = {
    type: 'text',
    from: { data: 'points' },
    encode: {
      enter: { ...place, text: { field: 'label' }, dx: { value: 5 }, dy: { value: -5 }, fontSize: { value: 10 } },
    },
  };
  const scale = (name: 'x' | 'y', type: 'linear' | 'log', range: [number, number], nice: boolean): Scale => {
    const shared = { name, range, domain: { data: 'points', field: name }, padding: 8 };
    return type === 'log' ? { ...shared, type } : { ...shared, type, zero: false, nice };
  };
  return {
    type: 'group',
    encode: { enter: { width: { value: width }, height: { value: height } } },
    ...(title && { title: { text: title, fontWeight: 'normal' } }),
    data: [{ name: 'points', values }],
    scales: [scale('x', xScale, [0, width], !xTicks), scale('y', yScale, [height, 0], true)],
    axes: [
      {
        scale: 'x',
        orient: 'bottom',
        title: xTitle,
        values: xTicks && [...xTicks],
        ...(xTicks && { encode: { labels: { update: { text: { signal: 'datum.value' } } } } }),
        grid: true,
        tickCount: 6,
        labelOverlap: 'greedy',
        gridScale: 'y',
      },
      { scale: 'y', gridScale: 'x', orient: 'left', title: yTitle, grid: true, tickCount: 5 },
    ],
    marks: [lines, dots, labels],
  };
}

/**
 * An SVG document of {@link chartsSvg} as pixels, its letters in a font of this machine, or in the built-in one.
 * @param density pixels per CSS pixel.
 */
export async function svgRaster(svg: string, density = 1.5): Promise<Raster> {
  const lettered = (await hasFonts()) ? svg : withPixelLetters(svg);
  const sized = lettered.replace(
    /width="([\d.]+)" height="([\d.]+)"/,
    (_, w, h) => `width="${w * density}" height="${h * density}"`,
  );
  return readRaster(new TextEncoder().encode(sized));
}

/** Writes charts as .svg or .png, by the path's ending, atomically. */
export async function saveCharts(path: string, charts: readonly Chart[], options?: FigureOptions): Promise<void> {
  const kind = chartKind(path);
  const svg = await chartsSvg(charts, options);
  if (kind === '.svg') await writeFileAtomic(path, new TextEncoder().encode(svg));
  else await savePng(path, await svgRaster(svg));
}

/** @throws UsageError unless a chart can be written to this path. */
export function chartKind(path: string): '.png' | '.svg' {
  const kind = extname(path).toLowerCase();
  if (kind === '.png' || kind === '.svg') return kind;
  throw new UsageError(`--out: ${path} must end in .png or .svg`);
}
