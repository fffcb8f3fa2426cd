import { camelCase, parseConfigText } from '../io/index.js';
import { ddim } from './ddim.js';
import { ddimInverse } from './ddimInverse.js';
import { ddpm } from './ddpm.js';
import { deis } from './deis.js';
import { dpmSolverMultistep } from './dpmSolverMultistep.js';
import { dpmSolverSinglestep } from './dpmSolverSinglestep.js';
import { edmDpmSolverMultistep, edmEuler } from './edm.js';
import { euler } from './euler.js';
import { eulerAncestral } from './eulerAncestral.js';
import { flowMatchEuler } from './flowMatchEuler.js';
import { flowMatchHeun } from './flowMatchHeun.js';
import { heun } from './heun.js';
import { kdpm2, kdpm2Ancestral } from './kdpm2.js';
import { lcm } from './lcm.js';
import { lms } from './lms.js';
import { pndm } from './pndm.js';
import { predictorCorrector } from './predictorCorrector.js';
import type { PlanOptions, Sampler } from './sampler.js';
import { scoreSdeVe, scoreSdeVp } from './scoreSde.js';
import { tcd } from './tcd.js';
import { unipc } from './unipc.js';

interface AnyFactory {
  (config: object, defaults?: object): Sampler<object, PlanOptions>;
  readonly className: string;
  readonly configKeys: readonly string[];
}

/** Every sampler by the diffusers class whose scheduler_config.json it reads and writes. */
export const samplers: readonly AnyFactory[] = [
  ddpm,
  ddim,
  pndm,
  euler,
  eulerAncestral,
  heun,
  lms,
  kdpm2,
  kdpm2Ancestral,
  dpmSolverMultistep,
  dpmSolverSinglestep,
  deis,
  unipc,
  lcm,
  tcd,
  edmEuler,
  edmDpmSolverMultistep,
  ddimInverse,
  flowMatchEuler,
  flowMatchHeun,
  scoreSdeVe,
  scoreSdeVp,
  predictorCorrector,
] as AnyFactory[];

const allKeys = new Set(samplers.flatMap((sampler) => sampler.configKeys));

/**
 * The sampler of a scheduler_config.json, given as text or parsed.
 * A field that belongs to another scheduler is left out, as diffusers does: old files carry such fields.
 * @throws TypeError for an unknown class (listing the known ones), an unknown field or a wrong value.
 */
export function samplerFromConfig(config: string | Readonly<Record<string, unknown>>, defaults?: object): Sampler {
  const { _class_name: className, ...json } = typeof config === 'string' ? parseConfigText(config) : config;
  const factory = samplers.find((sampler) => sampler.className === className);
  if (!factory) {
    const known = samplers.map((sampler) => sampler.className).join(', ');
    throw new TypeError(`scheduler config: _class_name: expected one of ${known}, got ${JSON.stringify(className)}`);
  }
  const fields = Object.entries(json)
    .filter(([key]) => !key.startsWith('_'))
    .map(([key, value]) => [camelCase(key), value] as const)
    .filter(([key]) => factory.configKeys.includes(key) || !allKeys.has(key));
  return factory(Object.fromEntries(fields), defaults) as Sampler;
}
