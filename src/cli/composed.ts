import { UsageError } from './exitCodes.js';
import { number, parseClasses } from './values.js';

/** What `--classes` asks for: one entry for each part between commas. */
export interface AskedClasses {
  readonly labels: readonly number[];
  /** Classes beside them, by condition; the null class where a part has none. Undefined when nothing is composed. */
  readonly further?: Readonly<Record<string, readonly number[]>>;
  /** Of `positive` and the conditions in `further`. */
  readonly weights: Readonly<Record<string, number>>;
  readonly names: readonly string[];
}

/**
 * `3,bag` as {@link parseClasses} reads it, and several classes at once: `bag+ankle boot`, with weights `bag+3:0.5`;
 * a negative weight says "not".
 * @param labelOf what people call a class.
 * @throws UsageError for a class that is unknown, or weights that differ between parts.
 */
export function parseComposed(
  text: string,
  classNames: readonly string[],
  count: number,
  labelOf: (label: number) => string,
): AskedClasses {
  if (!text.includes('+')) {
    const labels = parseClasses(text, classNames, count);
    return { labels, weights: { positive: 1 }, names: labels.map(labelOf) };
  }
  const parts = text.split(',').map((part) =>
    part.split('+').map((term) => {
      const [, name, weight] = /^(.*?)(?::\s*([^:]*))?$/.exec(term)!;
      const [label, ...more] = parseClasses(name, classNames, count);
      if (more.length > 0) throw new UsageError("--classes: 'all' goes without +");
      return { label, weight: weight === undefined ? undefined : number('--classes')(weight) };
    }),
  );
  const most = Math.max(...parts.map(({ length }) => length));
  const conditions = Array.from({ length: most }, (_, i) => (i === 0 ? 'positive' : `and ${i}`));
  const weightAt = (i: number): number => {
    const given = new Set(parts.flatMap((terms) => (terms[i] ? [terms[i].weight ?? 1] : [])));
    if (given.size > 1)
      throw new UsageError(
        `--classes: every part needs the same weight in place ${i + 1}, got ${[...given].join(', ')}`,
      );
    return [...given][0];
  };
  return {
    labels: parts.map(([first]) => first.label),
    further: Object.fromEntries(
      conditions.slice(1).map((name, i) => [name, parts.map((terms) => terms[i + 1]?.label ?? count)]),
    ),
    weights: Object.fromEntries(conditions.map((name, i) => [name, weightAt(i)])),
    names: parts.map((terms) =>
      terms.map(({ label, weight }) => `${labelOf(label)}${weight === undefined ? '' : ` ${weight}`}`).join(' + '),
    ),
  };
}
