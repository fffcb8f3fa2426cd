import type { Command } from 'commander';
import { writeEmojiFolder } from '../data/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { type Output, shellWord } from './output.js';
import { self } from './self.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly source?: string;
}

export function defineData(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'data',
      summary: 'make pictures with captions, to train text-to-image on',
      examples: [
        'data emoji --out emoji      # 1600 pictures and their names, of the npm package emoji-datasource-twitter',
        'train-text-to-image --preset xs --vae runs/vae --data emoji --out runs/a',
      ],
    },
    (command) => {
      command
        .argument('<name>', 'emoji')
        .option('--out <dir>', 'folder to make')
        .option('--source <dir>', 'where the package lies; default: where it is installed');
    },
    make,
  );
}

async function make(output: Output, { out, source }: Options, [name]: readonly string[]): Promise<ExitCode> {
  if (name !== 'emoji') throw new UsageError(`data: expected emoji, got '${name}'`);
  if (out === undefined) throw new UsageError('--out is missing: the folder to make');
  const counts = await writeEmojiFolder(out, source === undefined ? {} : { source });
  output.line(`${out}: ${counts.train} pictures with captions to train on, ${counts.test} held out`);
  output.line(`now an autoencoder for them:\n  ${self()} train-vae --data ${shellWord(out)} --size 32 --out runs/vae`);
  output.record({ kind: 'data', folder: out, ...counts });
  return exitCodes.ok;
}
