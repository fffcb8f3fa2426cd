import { Option } from 'commander';
import { wholeNumber } from './values.js';

/** Of a command that runs models. */
export interface ComputeOptions extends Readonly<Record<string, unknown>> {
  readonly device: 'cpu' | 'webgpu' | 'cuda';
  readonly threads?: number;
}

export const deviceFlag = (): Option =>
  new Option('--device <name>', 'where the computation runs').choices(['cpu', 'webgpu', 'cuda']).default('cpu');
export const threadsFlag = (): Option =>
  new Option('--threads <n>', 'threads of one operation; default: one per core').argParser(wholeNumber('--threads'));
