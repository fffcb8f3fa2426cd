import { type Command, Option } from 'commander';
import { z } from 'zod';
import { snakeCase } from '../io/index.js';
import { UsageError } from './exitCodes.js';
import { number } from './values.js';

interface FieldSchema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly default?: unknown;
}

export type FlagGroups<F extends string = string> = readonly (readonly [
  heading: string,
  fields: { readonly [Field in F]?: string },
])[];

export const flagName = (field: string): string => `--${snakeCase(field).replaceAll('_', '-')}`;

/** The settings of a run as flags of a command: types, choices and defaults are read from their schema. */
export class SchemaFlags<S extends z.ZodType> {
  private readonly fields: Readonly<Record<string, FieldSchema>>;

  constructor(readonly schema: S) {
    this.fields = z.toJSONSchema(schema, { io: 'input' }).properties as Record<string, FieldSchema>;
  }

  /** Whether this is one of the settings. */
  has(field: string): boolean {
    return Object.hasOwn(this.fields, field);
  }

  /** @param groups what each field means, under headings of the help. */
  addTo(command: Command, groups: FlagGroups<string>): void {
    for (const [heading, fields] of groups)
      for (const [field, text] of Object.entries(fields))
        command.addOption(this.option(field, text ?? '').helpGroup(heading));
  }

  /** Options carry no default of their own: which ones were given must be known, and the schema fills in the rest. */
  private option(field: string, text: string): Option {
    const { type, enum: choices, default: standard } = this.fields[field];
    const flag = flagName(field);
    if (type === 'boolean') return new Option(flag, text);
    const placeholder = choices ? 'name' : type === 'array' ? 'a,b' : type === 'string' ? 'data' : 'n';
    const shown = standard === undefined ? '' : ` (default: ${standard})`;
    const option = new Option(`${flag} <${placeholder}>`, text + shown);
    if (choices) option.choices(choices);
    else if (type !== 'string')
      option.argParser((value) => (type === 'array' ? value.split(',') : [value]).map(number(flag)));
    return option;
  }

  /** The parsed options that are settings, as the user gave them. */
  given(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
    const given = Object.entries(options).filter(([key]) => this.has(key));
    return Object.fromEntries(
      given.map(([key, value]) => [key, Array.isArray(value) && this.fields[key].type !== 'array' ? value[0] : value]),
    );
  }

  /** Settings with their defaults. @throws UsageError that names the flag, what it expects and what it was given. */
  parse(given: Readonly<Record<string, unknown>>): z.output<S> {
    const result = this.schema.safeParse(given);
    if (result.success) return result.data;
    const { path, message } = result.error.issues[0];
    const text = message.replace(/^Invalid \w+: |^Too \w+: /, '');
    throw new UsageError(`${flagName(String(path[0]))}: ${text}, got ${given[path[0] as string]}`);
  }
}

/** @throws UsageError for a text that is no JSON object. */
export function jsonObject(flag: string, text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {}
  throw new UsageError(`${flag}: expected a JSON object such as '{"latentChannels": 4}', got '${text}'`);
}

/** A size's config. @param model whose sizes these are. @throws UsageError that lists the sizes. */
export function presetNamed<P extends object>(presets: Readonly<Record<string, P>>, name: string, model = 'it'): P {
  if (Object.hasOwn(presets, name)) return presets[name];
  throw new UsageError(`--preset: ${model} has ${Object.keys(presets).join(', ')}; got '${name}'`);
}
