import { parity } from './cli.js';

const out = console.log;
console.log = console.error; // what adapters and the engine say is neither table nor JSON
// An exit code instead of process.exit(): a long JSON text must reach its pipe first.
process.exitCode = await parity(process.argv.slice(2), { out, err: console.error });
