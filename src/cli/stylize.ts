import type { Command } from 'commander';
import { toRasters } from '../io/index.js';
import { readImage, readRaster, savePng } from '../io/node/index.js';
import { loadStyleNet } from '../models/node/index.js';
import { stylize } from '../pipelines/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { duration, type Output } from './output.js';
import { shippedStyle } from './package.js';
import { pictureNote } from './pictureNote.js';
import { fileName, number, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly content?: string;
  readonly style?: readonly string[];
  readonly styleWeights?: string;
  readonly alpha: number;
  readonly preserveColour?: boolean;
  readonly size?: number;
  readonly weights?: string;
  readonly out: string;
}

export function defineStylize(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'stylize',
      summary: 'give a picture the style of others (AdaIN)',
      examples: [
        'stylize --content a.jpg --style b.jpg --alpha 0.8 --out c.png',
        'stylize --content a.jpg --style b.jpg c.jpg --style-weights 1,3 --preserve-colour --weights runs/style',
      ],
    },
    (command) => {
      command
        .option('--content <file>', 'the picture')
        .option('--style <file...>', 'pictures of the style; between several lies a mixture')
        .option('--style-weights <list>', 'how much of each style, as in 1,3; default: the same of all')
        .option('--alpha <n>', 'how much of the style: 0 keeps the content, 1 takes all of it', number('--alpha'), 1)
        .option('--preserve-colour', "keep the content's colours")
        .option('--size <n>', 'shrink larger pictures to this longer side, for less memory', wholeNumber('--size', 9))
        .option(
          '--weights <dir>',
          "folder of train-style, or with pytorch-AdaIN's two files; default: the small net that comes along",
        )
        .option('--out <file>', 'the picture made', fileName('--out', '.png'), 'stylized.png')
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    run,
  );
}

async function run(output: Output, options: Options): Promise<ExitCode> {
  const { content, style = [], alpha, preserveColour = false, size, weights: folder, out, device, threads } = options;
  if (content === undefined) throw new UsageError('--content is missing: the picture');
  if (style.length === 0) throw new UsageError('--style is missing: a picture in the style');
  if (!(alpha >= 0 && alpha <= 1)) throw new UsageError(`--alpha: expected 0 to 1, got ${alpha}`);
  const weights = options.styleWeights?.split(',').map(number('--style-weights'));
  if (weights && (weights.length !== style.length || !weights.every((w) => w >= 0) || !weights.some((w) => w > 0)))
    throw new UsageError(
      `--style-weights: expected a number of at least 0 for each of ${style.length} styles, not all 0, got ${weights}`,
    );
  const net = await loadStyleNet(folder ?? shippedStyle);
  const styles = await Promise.all(style.map((path) => pictureOf(path, size)));
  const picture = await pictureOf(content, size);
  const began = performance.now();
  const made = await stylize({
    net,
    content: picture,
    styles,
    weights,
    alpha,
    preserveColour,
    compile: { device, threads },
  });
  const seconds = (performance.now() - began) / 1000;
  const settings = { content, style, weights, alpha, preserveColour, size, net: folder };
  await savePng(out, toRasters(made)[0], pictureNote(settings));
  const [, height, width] = made.shape;
  output.line(`${width} x ${height} pixels in ${duration(seconds)}: ${out}`);
  output.record({ kind: 'stylized', ...settings, width, height, seconds, files: { image: out } });
  return exitCodes.ok;
}

/** In its own size, or shrunk to a longer side. */
async function pictureOf(path: string, longest?: number) {
  const own = longest === undefined ? undefined : await readRaster(path);
  const scale = own && longest !== undefined ? longest / Math.max(own.width, own.height) : 1;
  if (!own || scale >= 1) return readImage(path);
  const side = (pixels: number) => Math.max(9, Math.round(pixels * scale));
  return readImage(path, { size: [side(own.height), side(own.width)], resize: 'fill' });
}
