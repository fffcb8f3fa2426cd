import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of this package, wherever its code was built to. */
export const packageRoot: string = (() => {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder))
    if (existsSync(join(folder, 'package.json')) || folder === dirname(folder)) return folder;
})();

export const packageVersion = (): string =>
  (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version;

/** The checkpoint that comes with the package, trained on Fashion-MNIST. */
export const shippedCheckpoint = join(packageRoot, 'assets', 'fashion-mnist-dit');
/** The style-transfer net that comes with the package. */
export const shippedStyle = join(packageRoot, 'assets', 'style-transfer');
/** The classifier by which its pictures are judged. */
export const shippedClassifier = join(packageRoot, 'assets', 'fashion-mnist-classifier');
