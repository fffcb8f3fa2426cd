import { z } from 'zod';
import { camelCase, parseFields, snakeCase } from '../io/index.js';

export const positive = z.number().int().positive();

/** diffusers' activations. */
export const activation = z.enum(['silu', 'swish', 'mish', 'gelu', 'relu']);
/** Old configurations call blocks UNetResDownBlock2D and so on. */
export const blockTypes = <const T extends readonly [string, ...string[]]>(...names: T) =>
  z.array(z.preprocess((name) => (typeof name === 'string' ? name.replace(/^UNetRes/, '') : name), z.enum(names)));
/** Python's False, which old configurations may write as null. */
export const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);

/** A model's config: unknown fields are refused. */
export const modelConfig = <S extends z.ZodRawShape>(fields: S) => z.strictObject(fields);

/** Reads the content of a diffusers config.json: snake_case names, `_class_name` and other notes left out. */
export function configFromJson<S extends z.ZodType>(className: string, schema: S, json: unknown): z.output<S> {
  if (typeof json !== 'object' || json === null) throw new TypeError(`${className}: config.json must hold an object`);
  const fields = Object.entries(json).filter(([name]) => !name.startsWith('_'));
  return parseFields(className, schema, Object.fromEntries(fields.map(([name, value]) => [camelCase(name), value])));
}

/** The content of config.json that diffusers' from_pretrained reads. */
export const configToJson = (className: string, config: object): Record<string, unknown> => ({
  _class_name: className,
  _diffusers_version: '0.40.0',
  ...Object.fromEntries(Object.entries(config).map(([name, value]) => [snakeCase(name), value])),
});
