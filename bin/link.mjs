// Makes `npx noisewright` work in a clone: npm links the commands of dependencies, but not a package's own.
import { chmodSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';

const folder = new URL('../node_modules/.bin/', import.meta.url);
const main = '../../dist/src/cli/main.js';
if (process.platform !== 'win32') {
  mkdirSync(folder, { recursive: true });
  rmSync(new URL('noisewright', folder), { force: true });
  symlinkSync(main, new URL('noisewright', folder));
  chmodSync(new URL(`../${main.slice(6)}`, import.meta.url), 0o755);
}
