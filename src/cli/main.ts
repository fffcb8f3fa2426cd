#!/usr/bin/env node
import { endWhenUnread } from './interrupt.js';
import { runCli } from './program.js';

endWhenUnread([process.stdout, process.stderr]);

// An exit code instead of process.exit(): what is still being written must reach its pipe first.
process.exitCode = await runCli(process.argv.slice(2), {
  out: (line) => process.stdout.write(`${line}\n`),
  err: (line) => process.stderr.write(`${line}\n`),
  interactive: process.stderr.isTTY ?? false,
});
