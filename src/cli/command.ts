import type { Command } from 'commander';
import { type ExitCode, exitCodes, exitCodesHelp } from './exitCodes.js';
import { Output, type Sink } from './output.js';

/** One call of the command line. */
export interface Cli {
  readonly sink: Sink;
  exitCode: ExitCode;
}

interface Definition {
  readonly name: string;
  readonly summary: string;
  readonly examples: readonly string[];
}

type Options = Readonly<Record<string, unknown>>;

/**
 * Adds a command: its `--json`, its help with examples, and how its outcome becomes the exit code.
 * @param define adds arguments and options.
 * @param run gets the options and then the arguments; what it returns is the exit code, 0 if nothing.
 */
export function addCommand<O extends Options>(
  program: Command,
  cli: Cli,
  { name, summary, examples }: Definition,
  define: (command: Command) => void,
  run: (output: Output, options: O, args: readonly string[]) => Promise<ExitCode | undefined>,
): void {
  const command = program
    .command(name)
    .summary(summary)
    .description(`${summary[0].toUpperCase()}${summary.slice(1)}.`);
  define(command);
  command
    .option('--json', 'write JSON lines to stdout, and nothing else')
    .addHelpText(
      'after',
      `\nExamples:\n${examples.map((line) => `  $ noisewright ${line}`).join('\n')}\n\n${exitCodesHelp}`,
    )
    .action(async () => {
      const { json, ...options } = command.opts<{ json?: boolean } & O>();
      cli.exitCode =
        (await run(new Output(cli.sink, json ?? false), options as unknown as O, command.args)) ?? exitCodes.ok;
    });
}
