import { z } from 'zod';
import { configText } from '../config.js';
import { fileError, readBytes, writeFileAtomic } from './files.js';

/**
 * Reads a JSON file and checks it against a schema.
 * @throws Error that names the file and, where it breaks the schema, every key with what was expected.
 */
export async function readJson<T = unknown>(path: string, schema?: z.ZodType<T>): Promise<T> {
  const bytes = await readBytes(path);
  let raw: unknown;
  try {
    raw = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw fileError('read', path, new Error(`not valid JSON (${(cause as Error).message})`, { cause }));
  }
  if (!schema) return raw as T;
  const { success, data, error } = schema.safeParse(raw);
  if (!success) throw fileError('read', path, new Error(`\n${z.prettifyError(error)}`, { cause: error }));
  return data;
}

/** Writes indented JSON with a final newline, atomically. */
export const writeJson = (path: string, value: unknown): Promise<void> =>
  writeFileAtomic(path, new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`));

/** Writes a config as diffusers reads it, atomically: unlike {@link writeJson} with its infinite numbers. */
export const writeConfig = (path: string, config: Record<string, unknown>): Promise<void> =>
  writeFileAtomic(path, new TextEncoder().encode(configText(config)));
