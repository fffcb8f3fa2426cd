import { UsageError } from './exitCodes.js';
import { guiders, parseGuidance } from './guidance.js';
import { type SamplerName, samplerNames } from './values.js';

/** One setting that a sweep tries. */
export interface SweepPoint {
  /** As in `--guider`. */
  readonly guider: string;
  readonly scale: number;
  /** Both as `--guidance` of sample takes them. */
  readonly guidance: string;
  /** Undefined: the run's own. */
  readonly sampler?: SamplerName;
  readonly steps: number;
}

/** What the points of a sweep are, and what lies along the charts' x axis. */
export interface SweepPlan {
  readonly points: readonly SweepPoint[];
  readonly axis: 'guidance' | 'steps';
  /** Along the axis, rising. */
  readonly values: readonly number[];
  /** Everything else that was given more than one value, in the order it was given. */
  readonly series: readonly string[];
}

export interface SweepLists {
  readonly guider: string;
  readonly guidance: string;
  readonly sampler?: string;
  readonly steps: string;
}

/**
 * Every combination of the lists' values, which are parted by commas.
 * @param check refuses a guidance that is not allowed.
 * @throws UsageError for a value that is not allowed.
 */
export function sweepPlan(lists: SweepLists, check: (guidance: string) => unknown = parseGuidance): SweepPlan {
  const scales = numbers('--guidance', lists.guidance);
  const steps = numbers('--steps', lists.steps);
  const odd = steps.find((n) => !Number.isInteger(n) || n < 1);
  if (odd !== undefined) throw new UsageError(`--steps: expected whole numbers of at least 1, got ${odd}`);
  const guiders = words(lists.guider);
  const samplers = lists.sampler === undefined ? [undefined] : words(lists.sampler).map(samplerWord);
  const points = guiders.flatMap((guider) =>
    samplers.flatMap((sampler) =>
      steps.flatMap((n) =>
        scales.map((scale) => ({ guider, scale, guidance: guidanceText(guider, scale), sampler, steps: n })),
      ),
    ),
  );
  for (const { guidance } of points) check(guidance);
  const axis = scales.length > 1 || steps.length === 1 ? 'guidance' : 'steps';
  const series = [...new Set(points.map((point) => seriesOf(point, axis, lists)))];
  return { points, axis, values: axis === 'guidance' ? scales : steps, series };
}

/** Which line of the charts a point belongs to. */
export const seriesOf = (
  { guider, scale, sampler, steps }: SweepPoint,
  axis: SweepPlan['axis'],
  lists: SweepLists,
): string =>
  [
    several(lists.guider) && guider,
    axis === 'steps' && several(lists.guidance) && `scale ${scale}`,
    sampler !== undefined && several(lists.sampler ?? '') && sampler,
    axis === 'guidance' && several(lists.steps) && `${steps} steps`,
  ]
    .filter(Boolean)
    .join(', ');

export const axisValue = (point: SweepPoint, axis: SweepPlan['axis']): number =>
  axis === 'guidance' ? point.scale : point.steps;

const several = (list: string): boolean => list.includes(',');

const words = (list: string): string[] => [...new Set(list.split(',').map((word) => word.trim()))];

function numbers(flag: string, list: string): number[] {
  const values = words(list).map((word) => (word === '' ? Number.NaN : Number(word)));
  if (values.some(Number.isNaN)) throw new UsageError(`${flag}: expected numbers parted by commas, got '${list}'`);
  return [...new Set(values)].sort((a, b) => a - b);
}

function samplerWord(word: string): SamplerName {
  const name = samplerNames.find((known) => known === word);
  if (!name) throw new UsageError(`--sampler: expected any of ${samplerNames.join(', ')}, got '${word}'`);
  return name;
}

/** At 2, `cfg` is `cfg=2`, `cfg=3+pag+layers=4+5` is `cfg=3,pag=2,layers=4+5`, `fdg=s:1` is `fdg=2:1`. */
function guidanceText(guider: string, scale: number): string {
  const parts: string[] = [];
  for (const part of guider.split('+').map((word) => word.trim()))
    if (parts.length > 0 && !part.includes('=') && !Object.hasOwn(guiders, part)) parts.push(`${parts.pop()}+${part}`);
    else parts.push(part.includes('=') ? part : `${part}=s`);
  const text = parts.join(',');
  const scaled = text.replace(/(?<=[=:])s(?=[:,]|$)/g, String(scale));
  if (scaled === text)
    throw new UsageError(`--guider: '${guider}' has a value for everything; leave out the one to sweep`);
  return scaled;
}
