import { z } from 'zod';
import type { PredictionType } from '../diffusion/index.js';
import { parseFields, snakeCase } from '../io/index.js';
import type { Marginal } from './marginal.js';
import type { SamplerPlan } from './plan.js';

/** What every sampler's plan takes; a sampler's own options (eta, churn ...) come on top. */
export interface PlanOptions {
  /** Number of steps; most samplers call the denoiser once per step. */
  readonly steps?: number;
  /** Timesteps of your own in place of `steps`, for the samplers that take them. */
  readonly timesteps?: readonly number[];
  /** Noise levels of your own in place of `steps`, for the samplers that take them. */
  readonly sigmas?: readonly number[];
  /** Begin at this call instead of the first: image-to-image. A multistep sampler warms up again from here. */
  readonly start?: number;
}

/** A sampling method with its noise schedule, fully configured: immutable, so one may serve any number of runs. */
export interface Sampler<Config = Readonly<Record<string, unknown>>, Options extends PlanOptions = PlanOptions> {
  /** The diffusers class whose behaviour and config file this follows. */
  readonly className: string;
  /** Every config field with its value, diffusers' names in camelCase. */
  readonly config: Config;
  /** What the denoiser must predict. */
  readonly predictionType: PredictionType;
  /** The table of one run. @throws TypeError or RangeError naming the option, what was expected and what came. */
  plan(options: Options): SamplerPlan;
  /** How noisy x is at a training timestep, in this sampler's scaling of x. */
  marginal(timestep: number): Marginal;
  /** The content of scheduler_config.json. */
  toConfig(): Record<string, unknown>;
}

interface Definition<C extends z.ZodRawShape, O extends z.ZodRawShape> {
  readonly className: string;
  readonly config: C;
  readonly options: O;
  /** Everything that depends on the config alone is computed here, once. */
  create(config: z.output<z.ZodObject<C>>): {
    readonly predictionType: PredictionType;
    marginal(timestep: number): Marginal;
    plan(options: z.output<z.ZodObject<O>>): SamplerPlan;
  };
}

/** A sampler's public function: config fields left out take diffusers' defaults; `defaults` go under every plan's options. */
export interface SamplerFactory<C extends z.ZodRawShape = z.ZodRawShape, O extends z.ZodRawShape = z.ZodRawShape> {
  (
    config?: z.input<z.ZodObject<C>>,
    defaults?: Partial<z.input<z.ZodObject<O>>>,
  ): Sampler<z.output<z.ZodObject<C>>, z.input<z.ZodObject<O>>>;
  readonly className: string;
  readonly configKeys: readonly string[];
}

export const stepsField = z.number().int().positive();
export const startField = z.number().int().min(0).default(0);

/** Makes a sampler's public function out of its definition; validates config and options. */
export function defineSampler<C extends z.ZodRawShape, O extends z.ZodRawShape>(
  definition: Definition<C, O>,
): SamplerFactory<C, O> {
  const { className } = definition;
  const configSchema = z.strictObject(definition.config);
  const optionsSchema = z.strictObject(definition.options);

  const factory = (
    config: z.input<z.ZodObject<C>> | undefined,
    defaults: object = {},
  ): Sampler<z.output<z.ZodObject<C>>, z.input<z.ZodObject<O>>> => {
    const full = parseFields(className, configSchema, config ?? {}) as z.output<z.ZodObject<C>>;
    const { predictionType, marginal, plan } = definition.create(full);
    return Object.freeze({
      className,
      config: full,
      predictionType,
      marginal,
      plan: (options: object) => {
        const all: PlanOptions = { ...defaults, ...options };
        const counts = (['steps', 'timesteps', 'sigmas'] as const).filter((key) => all[key] !== undefined);
        if (counts.length > 1)
          throw new TypeError(
            `${className}: plan: expected one of steps, timesteps, sigmas, got ${counts.join(' and ')}`,
          );
        return plan(parseFields(`${className}: plan`, optionsSchema, all) as z.output<z.ZodObject<O>>);
      },
      toConfig: () => ({
        _class_name: className,
        ...Object.fromEntries(Object.entries(full).map(([key, value]) => [snakeCase(key), value])),
      }),
    });
  };
  return Object.assign(factory, { className, configKeys: Object.keys(definition.config) });
}
