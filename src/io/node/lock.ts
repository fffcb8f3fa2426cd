import { readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, resolve } from 'node:path';
import { fileError, isAlive, makeFolder } from './files.js';

const held = new Set<string>();

/** Whether the process that wrote a lock still runs. Of another machine that cannot be known: its lock counts as left behind. */
function isHeld(path: string, text: string): boolean {
  const [pid, host] = text.split(' ');
  // In containers every process may have the same number: then the file is of an earlier life.
  return host === hostname() && (Number(pid) === process.pid ? held.has(path) : isAlive(Number(pid)));
}

/**
 * Claims what a file stands for. One that a killed process left behind is taken over; a missing folder is made.
 * @param what is claimed, such as `the run runs/a`.
 * @returns gives it back.
 * @throws Error when a running process holds it, or the file cannot be written.
 */
export async function lock(path: string, what: string): Promise<() => Promise<void>> {
  const target = resolve(path);
  const earlier = await readFile(target, 'utf8').catch(() => undefined);
  if (earlier !== undefined && isHeld(target, earlier))
    throw new Error(
      `${what} is in use by process ${earlier.split(' ')[0]} (if that is something else, remove ${path})`,
    );
  try {
    await makeFolder(dirname(target));
    if (earlier !== undefined) await rm(target, { force: true });
    await writeFile(target, `${process.pid} ${hostname()}`, { flag: 'wx' });
  } catch (cause) {
    throw fileError('write', path, (cause as Error).cause ?? cause);
  }
  held.add(target);
  return async () => {
    if (held.delete(target)) await rm(target, { force: true });
  };
}
