import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { exists } from './case.js';

/** A tree is a few folders deep; a loop of links would not end. */
const deepest = 6;

/**
 * The folders below (or at) `root` that hold a case.json, in the order of their paths.
 * @throws Error when root is no folder, or holds no case.
 */
export async function findCases(root: string): Promise<string[]> {
  const status = await stat(root).catch(() => undefined);
  if (!status) throw new Error(`${root}: no such folder`);
  if (!status.isDirectory())
    throw new Error(`${root}: not a folder; give a case, a group of cases, or a tree of groups`);
  const cases = await below(resolve(root), 0);
  if (cases.length === 0) throw new Error(`${root}: no case.json in it or below it`);
  return cases;
}

async function below(folder: string, depth: number): Promise<string[]> {
  if (await exists(join(folder, 'case.json'))) return [folder];
  if (depth === deepest) return [];
  const found: string[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    if ((await stat(path).catch(() => undefined))?.isDirectory()) found.push(...(await below(path, depth + 1)));
  }
  return found;
}
