import { extname } from 'node:path';
import { VariancePreservingFlow } from '../pipelines/index.js';
import {
  ddim,
  ddpm,
  deis,
  dpmSolverMultistep,
  dpmSolverSinglestep,
  euler,
  eulerAncestral,
  flowMatchEuler,
  flowMatchHeun,
  heun,
  kdpm2,
  kdpm2Ancestral,
  lms,
  pndm,
  predictorCorrector,
  predictorCorrectorFor,
  type Sampler,
  unipc,
} from '../samplers/index.js';
import { UsageError } from './exitCodes.js';

export { parseGuidance } from './guidance.js';

/** A reader of numbers for commander. @throws UsageError that names the flag. */
export const number =
  (flag: string) =>
  (text: string): number => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isNaN(value)) return value;
    throw new UsageError(`${flag}: expected a number, got '${text}'`);
  };

/** A reader of file names with one of these endings, for commander. @throws UsageError that names the flag. */
export const fileName =
  (flag: string, ...endings: readonly string[]) =>
  (text: string): string => {
    if (endings.includes(extname(text).toLowerCase())) return text;
    throw new UsageError(`${flag}: expected a ${endings.join(' or ')} file, got '${text}'`);
  };

/** A reader of whole numbers from `least` on, for commander. @throws UsageError that names the flag. */
export const wholeNumber =
  (flag: string, least = 1) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least) return value;
    throw new UsageError(`${flag}: expected a whole number of at least ${least}, got '${text}'`);
  };

/**
 * `all`, or numbers and names in any mixture: `0,3,ankle-boot`.
 * @param names of the classes; empty when they are not known, `count` says how many there are.
 */
export function parseClasses(text: string, names: readonly string[], count: number): number[] {
  const numbers = Array.from({ length: count }, (_, i) => i);
  if (text === 'all') return numbers;
  const plain = (name: string) => name.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, '');
  const synonyms = (name: string) => [name, ...name.split(',')].map(plain); // as DiTPipeline names ImageNet's classes
  return text.split(',').map((part) => {
    const number = /^\s*\d+\s*$/.test(part)
      ? Number(part)
      : names.findIndex((name) => synonyms(name).includes(plain(part)));
    if (number >= 0 && number < count) return number;
    const near = names.filter((name) => plain(name).includes(plain(part)));
    const listed = names.length <= 20 ? names : near.length > 0 ? near.slice(0, 20) : [...names.slice(0, 10), '...'];
    const known =
      names.length > 0 ? ` or names (${listed.join(names.some((name) => name.includes(',')) ? '; ' : ', ')})` : '';
    throw new UsageError(`--classes: expected all, numbers 0..${count - 1}${known}, got '${part.trim()}'`);
  });
}

const factories = {
  ddim,
  ddpm,
  euler,
  'euler-a': eulerAncestral,
  heun,
  kdpm2,
  'kdpm2-a': kdpm2Ancestral,
  lms,
  pndm,
  deis,
  'dpmpp-2m': dpmSolverMultistep,
  'dpmpp-2s': dpmSolverSinglestep,
  unipc,
  'flow-euler': flowMatchEuler,
  'flow-heun': flowMatchHeun,
  pc: predictorCorrector,
} as const;
export type SamplerName = keyof typeof factories;
export const samplerNames = Object.keys(factories) as SamplerName[];

/**
 * Another sampler over the noise schedule of the one a model came with. For a model of rectified flow it stays with the
 * flow where the sampler can; the others predict v of a variance preserving process, see `VariancePreservingFlow`.
 * @throws UsageError when it cannot follow what the model predicts.
 */
export function samplerNamed(name: SamplerName, own: Sampler): Sampler {
  const factory = factories[name] as NamedFactory;
  if (factory.className === own.className) return own;
  if (name === 'pc') return predictorCorrectorFor(own) as Sampler;
  if (own.predictionType !== 'flow') {
    if (name.startsWith('flow-'))
      throw new UsageError(
        `--sampler ${name}: this model predicts ${own.predictionType}, not flow; use ddim or dpmpp-2m`,
      );
    const shared = Object.entries(own.config).filter(([key]) => factory.configKeys.includes(key));
    return factory(Object.fromEntries(shared));
  }
  if (name.startsWith('flow-')) return factory({});
  const native = factory.configKeys.includes('useFlowSigmas') && name !== 'deis'; // its flow, as diffusers', leaves noise
  if (native) return factory({ predictionType: 'flow_prediction', useFlowSigmas: true });
  // Few steps should begin at pure noise.
  const trailing = factory.configKeys.includes('timestepSpacing') && { timestepSpacing: 'trailing' };
  const unclipped = name === 'ddim' && { clipSample: false }; // it keeps the noise of the unclipped x0, and drifts
  return factory({ ...VariancePreservingFlow.betas, predictionType: 'v_prediction', ...trailing, ...unclipped });
}

interface NamedFactory {
  (config: object): Sampler;
  readonly className: string;
  readonly configKeys: readonly string[];
}

/** The short name of a sampler, for people. */
export const samplerNameOf = (sampler: Sampler): string =>
  samplerNames.find((name) => factories[name].className === sampler.className) ?? sampler.className;
