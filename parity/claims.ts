import { z } from 'zod';
import { readJson } from '../src/io/node/index.js';
import type { Result } from './run.js';

/** `B_blocks` claims a group, `H_systems/rf_*` the cases that begin so, `C_models/dit` one case. */
const claims = z.array(z.string().regex(/^\w+(\/[^*]+)?\*?$/, "expected 'group', 'group/prefix*' or 'group/case'"));

export const readClaims = (path: string): Promise<string[]> => readJson(path, claims);

const covers = (claim: string, { group, name }: Result): boolean => {
  const path = `${group}/${name}`;
  if (claim.endsWith('*')) return path.startsWith(claim.slice(0, -1));
  return claim === group || claim === path;
};

/** What is wrong with the claims, a line each: a claimed case that fails, or a claim that no case answers to. */
export function brokenClaims(list: readonly string[], results: readonly Result[]): string[] {
  return list.flatMap((claim) => {
    const covered = results.filter((result) => covers(claim, result));
    if (covered.length === 0) return [`claimed '${claim}', but no case is called so`];
    return covered
      .filter(({ pass }) => !pass)
      .map(({ group, name, reason }) => `claimed '${claim}', but ${group}/${name} fails: ${reason}`);
  });
}
