import { basename, relative } from 'node:path';
import { shellWord } from './output.js';

/** How the command line was called, so that what it suggests can be typed as it stands. */
export function self(env: NodeJS.ProcessEnv = process.env, script = process.argv[1]): string {
  if (env.npm_command) return 'npx noisewright'; // by npx, or by npm run in a clone
  if (basename(script).startsWith('noisewright')) return 'noisewright';
  return `node ${shellWord(relative(process.cwd(), script))}`;
}
