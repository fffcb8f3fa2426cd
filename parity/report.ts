import type { Result } from './run.js';

const figure = (x: number | null): string => (x === null ? '-' : x === 0 ? '0' : x.toExponential(1));
const longestReason = 160;

/** One line of the table: case, worst error, tolerance, verdict and why. */
export function row({ group, name, pass, error, tolerance, reason }: Result, nameWidth: number): string {
  const shown = reason.length > longestReason ? `${reason.slice(0, longestReason - 1)}…` : reason;
  const cells = [
    `${group}/${name}`.padEnd(nameWidth),
    figure(error).padStart(8),
    figure(tolerance).padStart(9),
    pass ? 'pass' : 'FAIL',
    shown,
  ];
  return cells.join('  ').trimEnd();
}

export const header = (nameWidth: number): string =>
  ['case'.padEnd(nameWidth), 'error'.padStart(8), 'tolerance'.padStart(9), 'verdict'].join('  ');

/** How many of each group pass, and of all. */
export function summary(results: readonly Result[]): string {
  const groups = [...new Set(results.map(({ group }) => group))];
  const count = (label: string, of: readonly Result[]) =>
    `${label.padEnd(14)} ${String(of.filter(({ pass }) => pass).length).padStart(4)} of ${of.length} pass`;
  const lines = groups.map((name) =>
    count(
      name,
      results.filter(({ group }) => group === name),
    ),
  );
  return [...lines, count('all', results)].join('\n');
}

/** What `--json` prints. */
export const asJson = (results: readonly Result[]): string =>
  JSON.stringify({
    passed: results.filter(({ pass }) => pass).length,
    failed: results.filter(({ pass }) => !pass).length,
    cases: results,
  });
