import type { Adapter } from './adapter.js';
import { placeOf, ReferenceCase } from './case.js';
import { type Comparison, compare, worstOf } from './compare.js';
import { findAdapter } from './groups/index.js';
import { toleranceOf } from './tolerances.js';

export interface Result {
  readonly group: string;
  readonly name: string;
  readonly pass: boolean;
  /** Of the output nearest to its tolerance, or beyond it; null when nothing could be compared. */
  readonly error: number | null;
  readonly tolerance: number | null;
  /** Why it failed; empty when it passed. */
  readonly reason: string;
}

/** No case takes a minute; an adapter that waits for ever must not end the run. */
const patienceMs = 300_000;

export type FindAdapter = (group: string, kind: string) => Promise<Adapter | undefined>;

/** Runs one case. Whatever goes wrong in it is its own failure. */
export async function runCase(directory: string, find: FindAdapter = findAdapter): Promise<Result> {
  let place = placeOf(directory);
  const failed = (reason: string): Result => ({ ...place, pass: false, error: null, tolerance: null, reason });
  const strays: unknown[] = [];
  const catchStray = (error: unknown) => strays.push(error);
  process.on('unhandledRejection', catchStray);
  process.on('uncaughtException', catchStray);
  try {
    const reference = await ReferenceCase.load(directory);
    place = { group: reference.group, name: reference.name };
    const adapter = await find(reference.group, reference.kind);
    if (!adapter) return failed(`not supported yet: ${reference.kind}`);
    const comparisons = await inTime(reproduce(reference, adapter));
    await new Promise(setImmediate); // stray rejections are reported after the present turn
    if (strays.length > 0) throw strays[0];
    return { ...place, ...summarize(comparisons) };
  } catch (error) {
    return failed(messageOf(error));
  } finally {
    process.off('unhandledRejection', catchStray);
    process.off('uncaughtException', catchStray);
  }
}

async function reproduce(reference: ReferenceCase, adapter: Adapter): Promise<Comparison[]> {
  const outputs = await adapter(reference);
  return reference
    .expected()
    .map(([name, stored]) =>
      compare(
        name,
        Object.hasOwn(outputs, name) ? outputs[name] : undefined,
        stored,
        toleranceOf(reference, name, stored),
      ),
    );
}

function summarize(comparisons: readonly Comparison[]): Omit<Result, 'group' | 'name'> {
  const worst = worstOf(comparisons);
  if (!worst) return { pass: false, error: null, tolerance: null, reason: 'the case stores nothing to compare with' };
  const others = comparisons.filter(({ pass }) => !pass).length - 1;
  return {
    pass: worst.pass,
    error: worst.error ?? null,
    tolerance: worst.tolerance,
    reason: others > 0 ? `${worst.reason} (and ${others} more outputs)` : worst.reason,
  };
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result after ${patienceMs / 1000} s`)), patienceMs);
  });
  return Promise.race([work, timeout]).finally(() => clearTimeout(timer));
}

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message || error.name : String(error)).replace(/\s+/g, ' ').trim();
