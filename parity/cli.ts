import { parseArgs } from 'node:util';
import { placeOf } from './case.js';
import { brokenClaims, readClaims } from './claims.js';
import { findCases } from './find.js';
import { asJson, header, row, summary } from './report.js';
import { type Result, runCase } from './run.js';

const usage = `usage: npm run --silent parity -- DIR [--json] [--claimed FILE]

Compares this library with stored outputs of the real implementations.
  DIR             a tree of groups, a group, or one case (a folder with case.json)
  --json          print one JSON object { passed, failed, cases } and nothing else
  --claimed FILE  fail only where FILE (a JSON list of groups, group/prefix* and group/case) claims success

exit code: 0 all pass, 1 some fail (with --claimed: a claimed one), 2 DIR or FILE cannot be used`;

class UsageError extends Error {}

/** Where lines go; the console by default. */
export interface Output {
  out(line: string): void;
  err(line: string): void;
}

/** The whole tool. @returns the exit code. */
export async function parity(args: readonly string[], output: Output): Promise<number> {
  try {
    return await compareAll(args, output);
  } catch (error) {
    output.err(`parity: ${error instanceof Error ? error.message : error}`);
    if (error instanceof UsageError) output.err(`\n${usage}`);
    return 2;
  }
}

async function compareAll(args: readonly string[], { out, err }: Output): Promise<number> {
  const { values, positionals } = readArguments(args);
  if (values.help) {
    out(usage);
    return 0;
  }
  if (positionals.length !== 1) throw new UsageError(`expected one DIR, got ${positionals.length}`);
  const claimed = values.claimed === undefined ? undefined : await readClaims(values.claimed);
  const directories = await findCases(positionals[0]);

  const print = values.json ? () => {} : out;
  const width = Math.max(...directories.map(placeOf).map(({ group, name }) => group.length + name.length + 1));
  print(header(width));
  const results: Result[] = [];
  for (const directory of directories) {
    const result = await runCase(directory);
    results.push(result);
    print(row(result, width));
  }
  print(`\n${summary(results)}`);
  if (values.json) out(asJson(results));

  if (!claimed) return results.every(({ pass }) => pass) ? 0 : 1;
  const broken = brokenClaims(claimed, results);
  for (const line of broken) err(line);
  return broken.length === 0 ? 0 : 1;
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: { type: 'boolean' },
        claimed: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}
