import { ndarray } from '../array/index.js';
import { writeNpz } from '../io/node/index.js';
import { runCli } from './program.js';

/** Calls the command line in this process. @returns its lines on stdout. */
export async function call(...args: string[]): Promise<{ code: number; out: string[]; err: string }> {
  const [out, err]: string[][] = [[], []];
  const sink = { out: (line: string) => out.push(line), err: (line: string) => err.push(line), interactive: false };
  return { code: await runCli(args, sink), out, err: err.join('\n') };
}

/** The same. @returns stdout as one text. */
export async function cli(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const { out, ...rest } = await call(...args);
  return { ...rest, out: out.join('\n') };
}

/** The lines that `--json` writes. */
export const records = (out: readonly string[]): Record<string, unknown>[] =>
  out.map((line) => JSON.parse(line) as Record<string, unknown>);

/** A data set of 8x8 pictures of some classes; its test pictures are those that are trained on. */
export async function writeToy(path: string, count: number, classes = 3): Promise<void> {
  const levels = Uint8Array.from({ length: count * 64 }, (_, i) => (i * 37) % 256);
  const images = ndarray(levels, [count, 8, 8], 'uint8');
  const numbers = Uint8Array.from({ length: count }, (_, i) => i % classes);
  const labels = ndarray(numbers, [count], 'uint8');
  await writeNpz(path, { images, labels, images_test: images, labels_test: labels });
}
