import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { expandHome, portablePath } from './portablePath.js';

afterEach(() => vi.unstubAllEnvs());

const here = process.cwd();

test.each([
  ['owner/name', 'owner/name'],
  ['runs/a', 'runs/a'],
  ['./cat.png', './cat.png'],
  ['a/../cat.png', 'a/../cat.png'],
  ['..cat.png', '..cat.png'],
  ['fashion-mnist:9', 'fashion-mnist:9'],
  ['~/sd15', '~/sd15'],
  [join(here, 'runs', 'a'), './runs/a'],
  [here, './.'],
  [join(here, 'x', '..', 'ink.safetensors:0.7'), './ink.safetensors:0.7'],
])('%s is written as %s', (path, expected) => {
  vi.stubEnv('HOME', '/home/anna');
  expect(portablePath(path)).toBe(expected);
  expect(resolve(expandHome(portablePath(path)))).toBe(path.startsWith('~') ? '/home/anna/sd15' : resolve(path));
});

test('the home folder is ~', () => {
  vi.stubEnv('HOME', '/home/anna');
  for (const name of ['', '/models/sd 1.5', '/..odd/a'])
    expect([portablePath(`/home/anna${name}`), expandHome(`~${name}`)]).toEqual([`~${name}`, `/home/anna${name}`]);
  for (const elsewhere of ['/data/sd15', '/home/annabel/sd15', '/home'])
    expect(portablePath(elsewhere)).toBe(elsewhere);
  expect(expandHome('~anna/x')).toBe('~anna/x');
});

test('a way out of the working directory does not tell of the home folder', () => {
  vi.stubEnv('HOME', join(here, '..'));
  expect(portablePath('../models/sd15')).toBe('~/models/sd15');
  vi.stubEnv('HOME', join(here, 'home', 'anna')); // as where the working directory is /
  expect(portablePath(join(here, 'home', 'anna', 'sd15'))).toBe('~/sd15');
  expect(homedir()).toBe(join(here, 'home', 'anna'));
});
