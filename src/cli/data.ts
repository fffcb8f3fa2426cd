import type { Command } from 'commander';
import { edgeMap } from '../data/index.js';
import { writeEmojiFolder, writeRecolouredEmojiFolder } from '../data/node/index.js';
import { readRaster, savePng } from '../io/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { type Output, shellWord } from './output.js';
import { self } from './self.js';
import { fileName, wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly source?: string;
  readonly size?: number;
  readonly recoloured?: boolean;
}

export function defineData(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'data',
      summary: 'make pictures with captions to train text-to-image on, and edges to show a ControlNet',
      examples: [
        'data emoji --out emoji      # 1600 pictures and their names, of the npm package emoji-datasource-twitter',
        'data emoji --recoloured --out things    # 32 of them in eight colours: purple fish, green book ...',
        'data edges cat.png --out edges.png    # as train-text-to-image --hint edges draws them',
        'train-text-to-image --preset xs --vae runs/vae --data emoji --out runs/a',
      ],
    },
    (command) => {
      command
        .argument('<name>', 'emoji, or edges')
        .argument('[picture]', 'with edges: whose')
        .option('--out <path>', 'folder to make; with edges: a .png file')
        .option('--recoloured', 'with emoji: 32 of them in eight colours, a quarter of the pairs held out')
        .option('--source <dir>', 'with emoji: where the package lies; default: where it is installed')
        .option('--size <n>', 'with edges: scale and crop to this side length first', wholeNumber('--size'));
    },
    make,
  );
}

async function make(
  output: Output,
  { out, source, size, recoloured }: Options,
  [name, picture]: readonly string[],
): Promise<ExitCode> {
  if (name !== 'emoji' && name !== 'edges') throw new UsageError(`data: expected emoji or edges, got '${name}'`);
  if (out === undefined) throw new UsageError('--out is missing: what to make');
  if (name === 'edges') {
    if (picture === undefined) throw new UsageError('data edges: the picture is missing');
    const file = fileName('--out', '.png')(out);
    await savePng(file, edgeMap(await readRaster(picture, { size })));
    output.line(file);
    output.record({ kind: 'data', file });
    return exitCodes.ok;
  }
  const write = recoloured ? writeRecolouredEmojiFolder : writeEmojiFolder;
  const counts = await write(out, source === undefined ? {} : { source });
  output.line(`${out}: ${counts.train} pictures with captions to train on, ${counts.test} held out`);
  output.line(`now an autoencoder for them:\n  ${self()} train-vae --data ${shellWord(out)} --size 32 --out runs/vae`);
  output.record({ kind: 'data', folder: out, ...counts });
  return exitCodes.ok;
}
