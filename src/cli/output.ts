/** Where a command writes; the process's own streams, or a test's lists. */
export interface Sink {
  /** One line to stdout. */
  out(line: string): void;
  /** One line to stderr. */
  err(line: string): void;
  /** stderr is a terminal: progress is drawn there. */
  readonly interactive: boolean;
}

/** What a command tells: lines for people, or with `--json` records for machines, a line each and nothing else. */
export class Output {
  constructor(
    readonly sink: Sink,
    readonly json: boolean,
  ) {}

  /** For people. */
  line(text: string): void {
    if (!this.json) this.sink.out(text);
  }

  /** For machines. */
  record(value: object): void {
    if (this.json) this.sink.out(JSON.stringify(value));
  }
}

/** Rows of cells as aligned columns: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  );
}

/** 90 seconds are `1m 30s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h > 0) return `${h}h ${String(m).padStart(2, '0')}m`;
  return m > 0 ? `${m}m ${String(s).padStart(2, '0')}s` : `${s}s`;
}

/** Three significant digits, without an exponent where it can be avoided. */
export const figure = (x: number): string =>
  Math.abs(x) >= 100
    ? String(Math.round(x))
    : Math.abs(x) < 1e-4 && x !== 0
      ? x.toExponential(1)
      : String(Number(x.toPrecision(3)));

export const mebibytes = (kilobytes: number): string => `${figure(kilobytes / 1024)} MiB`;

/** A word as a shell takes it. */
export const shellWord = (text: string): string =>
  /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const bars = '▁▂▃▄▅▆▇█';

/** A line of bars, one for each value, from the smallest to the largest. */
export function sparkline(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const level = (value: number) => (high > low ? Math.round(((value - low) / (high - low)) * (bars.length - 1)) : 0);
  return values.map((value) => bars[level(value)]).join('');
}
