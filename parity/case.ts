import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import type { NdArray } from '../src/array/index.js';
import { parseConfigText } from '../src/io/index.js';
import { readBytes, readSafetensors } from '../src/io/node/index.js';

export type Tensors = ReadonlyMap<string, NdArray>;

/** A stored output of a real implementation. Every tensor that is neither an input nor given must be reproduced. */
export class ReferenceCase {
  readonly #given = new Set<string>();

  private constructor(
    readonly group: string,
    readonly name: string,
    /** What adapters are found by: the class, pipeline or symbol that the case was recorded from. */
    readonly kind: string,
    readonly directory: string,
    /** case.json */
    readonly description: Readonly<Record<string, unknown>>,
    /** config.json; empty when there is none. */
    readonly config: Readonly<Record<string, unknown>>,
    /** weights.safetensors, own or shared; empty when there are none. */
    readonly weights: Tensors,
    /** io.safetensors: everything stored, under its full name. */
    readonly tensors: Map<string, NdArray>,
  ) {}

  /** @throws Error that names the file that is missing or malformed. */
  static async load(directory: string): Promise<ReferenceCase> {
    const description = await readRecord(join(directory, 'case.json'));
    const optional = async (file: string) =>
      (await exists(join(directory, file))) ? join(directory, file) : undefined;
    const config = await optional('config.json');
    const io = await optional('io.safetensors');
    const weights =
      (await optional('weights.safetensors')) ?? (await sharedWeights(directory, description.weights_from));
    const place = placeOf(directory);
    const { group = place.group, name = place.name } = description;
    return new ReferenceCase(
      String(group),
      String(name),
      kindOf(description),
      directory,
      description,
      config ? await readRecord(config) : {},
      weights ? (await readSafetensors(weights)).tensors : new Map(),
      await readStored(io, description.io),
    );
  }

  /** The stored tensor `in.<name>`. */
  input(name: string): NdArray {
    return this.optionalInput(name) ?? missing(`in.${name}`);
  }

  optionalInput(name: string): NdArray | undefined {
    return this.tensors.get(`in.${name}`);
  }

  /** The names of all inputs, without their `in.`, that begin with a prefix. */
  inputNames(prefix = ''): string[] {
    return [...this.tensors.keys()].filter((name) => name.startsWith(`in.${prefix}`)).map((name) => name.slice(3));
  }

  /** A stored tensor that an adapter starts from although it is not called `in.*`; it is not compared. */
  given(name: string): NdArray {
    const tensor = this.tensors.get(name) ?? missing(name);
    if (/^(out|grad)\b/.test(name)) throw new Error(`'${name}' is an output: it cannot be given`);
    this.#given.add(name);
    return tensor;
  }

  /** Adds something stored in another of the case's files to what must be reproduced. */
  expect(name: string, tensor: NdArray): void {
    this.tensors.set(name, tensor);
  }

  /** What must be reproduced. Meaningful after the adapter has run. */
  expected(): [string, NdArray][] {
    return [...this.tensors].filter(([name]) => !name.startsWith('in.') && !this.#given.has(name));
  }

  /** case.json, checked; keys outside the schema are ignored. */
  read<T>(schema: z.ZodType<T>): T {
    return schema.parse(this.description);
  }
}

/** Group and name by the folders, for a case that cannot say its own. */
export function placeOf(directory: string): { group: string; name: string } {
  const path = resolve(directory);
  return { group: basename(dirname(path)), name: basename(path) };
}

function missing(name: string): never {
  throw new Error(`io.safetensors holds no '${name}'`);
}

/** Python may have written a bare Infinity into a config, which JSON does not know. */
async function readRecord(path: string): Promise<Record<string, unknown>> {
  try {
    return parseConfigText(new TextDecoder('utf-8', { fatal: true }).decode(await readBytes(path)));
  } catch (cause) {
    throw new Error(`cannot read ${path}: not valid JSON (${(cause as Error).message})`, { cause });
  }
}

/** io.safetensors, which must hold all that the table in case.json lists. */
async function readStored(path: string | undefined, table: unknown): Promise<Map<string, NdArray>> {
  const tensors: Map<string, NdArray> = path ? (await readSafetensors(path)).tensors : new Map();
  for (const name of Object.keys(table ?? {})) if (!tensors.has(name)) missing(name);
  return tensors;
}

function kindOf(description: Record<string, unknown>): string {
  const { cls, pipeline, source, vocab_files: vocabulary } = description;
  const symbol = typeof source === 'object' && source !== null ? (source as { symbol?: unknown }).symbol : undefined;
  return String(cls ?? pipeline ?? symbol ?? (vocabulary ? 'CLIPTokenizer' : '(no class)'));
}

/** `weights_from` is a case of the same group, or group/case. */
async function sharedWeights(directory: string, from: unknown): Promise<string | undefined> {
  if (typeof from !== 'string') return undefined;
  for (const up of ['..', '../..']) {
    const path = resolve(directory, up, from, 'weights.safetensors');
    if (await exists(path)) return path;
  }
  throw new Error(`weights_from '${from}': no such case beside this one, or none with weights.safetensors`);
}

export const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );
