import { homedir } from 'node:os';
import { isAbsolute, join, normalize, relative, resolve, sep } from 'node:path';

/** Whether a path, as `relative` or the user gives it, leads out of where it begins. */
const leads = (path: string): boolean => isAbsolute(path) || normalize(path).split(sep)[0] === '..';
const isBelow = (path: string, folder: string): boolean => !leads(relative(folder, path));

/**
 * A path as it may be shown to others, who need not know where the user's home is: below the working directory relative to
 * it (`./runs/a`), else below the home folder as `~/models/a`, else unchanged. One that is relative and does not leave the
 * working directory stays as it is, so a model's id at the hub does. {@link expandHome} opens it again.
 */
export function portablePath(path: string): string {
  if (!leads(path)) return path;
  const [here, home, whole] = [process.cwd(), homedir(), resolve(path)];
  const from = (folder: string, sign: string) => join(sign, relative(folder, whole)).split(sep).join('/');
  if (isBelow(whole, here) && !isBelow(home, here)) return `./${from(here, '')}`; // never above the home folder
  return isBelow(whole, home) ? from(home, '~') : path;
}

/** A path that may begin with `~`, as {@link portablePath} writes it. */
export const expandHome = (path: string): string => (/^~(\/|$)/.test(path) ? join(homedir(), path.slice(1)) : path);
