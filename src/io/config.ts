import type { z } from 'zod';

/**
 * Parses with a schema that allows no unknown keys.
 * @throws TypeError `DDIMScheduler: betaSchedule: expected one of ..., got "foo"`, one line per wrong field.
 */
export function parseFields<S extends z.ZodType>(owner: string, schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => {
    const path = issue.path.map(String);
    const got = path.reduce<unknown>((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], value);
    const came = issue.code === 'unrecognized_keys' ? '' : `, got ${JSON.stringify(got) ?? 'nothing'}`;
    return `${[owner, ...path].join(': ')}: ${issue.message.replace(/^Invalid (option|input): /, '')}${came}`;
  });
  throw new TypeError(lines.join('\n'));
}

/** `downBlocks` is `down_blocks` in checkpoints and config files; names that already have underscores stay. */
export const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
export const camelCase = (name: string): string =>
  name.replace(/(?<=.)_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

const notNumbers: Record<string, number> = { Infinity, '-Infinity': -Infinity };

/** Reads the JSON of a diffusers config, in which Python may have written a bare Infinity. */
export function parseConfigText(text: string): Record<string, unknown> {
  const quoted = text.replace(/(:\s*)(-?Infinity)(?=\s*[,}])/g, '$1"$2"');
  const value: unknown = JSON.parse(quoted, (_, item) =>
    typeof item === 'string' ? (notNumbers[item] ?? item) : item,
  );
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`scheduler config: expected a JSON object, got ${text.slice(0, 40)}`);
  return value as Record<string, unknown>;
}

/** Writes a config as Python's json does, so that diffusers reads it back. */
export const configText = (config: Record<string, unknown>): string =>
  `${JSON.stringify(config, (_, item) => (item === Infinity || item === -Infinity ? String(item) : item), 2).replace(/"(-?Infinity)"/g, '$1')}\n`;
