// What the comparisons beside this file share: measurements that go on where they stopped, and training on Fashion-MNIST.
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { batches, Generator, heldOutLoss, TrainingSession, trainableClass, trainConfig } from 'noisewright';
import { openDataset } from 'noisewright/node';

/** Rows of measurements in a file, one JSON object a line; `once` makes a row that is not there yet. */
export function notebook(path) {
  if (!path) throw new Error('expected the file in which measurements are kept, such as runs/measurements.jsonl');
  mkdirSync(dirname(path), { recursive: true });
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const rows = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  return {
    rows,
    async once(key, measure) {
      if (rows.some((row) => Object.entries(key).every(([name, value]) => row[name] === value))) return;
      const row = { ...key, ...(await measure()) };
      rows.push(row);
      appendFileSync(path, `${JSON.stringify(row)}\n`);
      console.error(Object.entries(key).map(([name, value]) => `${name} ${value}`).join(', '), 'done');
    },
  };
}

export const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
export const deviation = (xs) => Math.sqrt(xs.reduce((sum, x) => sum + (x - mean(xs)) ** 2, 0) / Math.max(1, xs.length - 1));
export const spread = (xs, digits) => `${mean(xs).toFixed(digits)} ± ${deviation(xs).toFixed(digits)}`;

/** A table in Markdown. */
export const markdown = ([head, ...rows]) =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

export const compile = { threads: 1 };
export const training = await openDataset('fashion-mnist');
export const heldOut = await openDataset('fashion-mnist', { split: 'test' });

/**
 * Trains a denoiser. After each step `look` is told the step, the processor time of all steps but the first (which
 * makes the graph), and functions for the averaged weights' held-out loss and model; when it answers true, training ends.
 */
export async function train(settings, look) {
  const config = trainConfig.parse({ data: 'fashion-mnist', threads: 1, ...settings });
  const [channels, size] = training.shape;
  const format = { channels, size, classes: training.classNames.length };
  const create = () => trainableClass(config.model).create(config.modelConfig, format, new Generator(config.seed));
  const session = new TrainingSession(create(), config);
  const averaged = async () => {
    const twin = create();
    twin.loadStateDict(await session.averagedState());
    return twin;
  };
  const lossOf = async (count) => heldOutLoss(await averaged(), session.objective, heldOut, { count, compile });
  let [seconds, mark] = [0, process.cpuUsage()];
  for await (const { step } of session.run(batches(training, { batch: config.batch, seed: config.seed }))) {
    const { user, system } = process.cpuUsage(mark);
    if (step > 1) seconds += (user + system) / 1e6;
    if (await look({ step, seconds, averaged, lossOf, parameters: session.model.parameterCount() })) break;
    mark = process.cpuUsage();
  }
  await session.release();
}
