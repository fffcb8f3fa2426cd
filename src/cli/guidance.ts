import {
  apg,
  apgMix,
  autoguidance,
  type ClassifierGuidanceOptions,
  cfg,
  cfgZeroStar,
  classifierGuidance,
  composeConditions,
  frequencyDecoupled,
  type GuidanceOptions,
  type Guider,
  guide,
  type Layers,
  magnitudeAware,
  type NoisyClassifier,
  pag,
  type SkipOptions,
  skipLayer,
  smoothedEnergy,
  tangentialCfg,
  unguided,
} from '../guidance/index.js';
import type { Denoiser } from '../models/index.js';
import { UsageError } from './exitCodes.js';

/** What `--guidance` says besides scales. */
interface Parameters {
  readonly layers?: Layers;
  readonly skip?: SkipOptions['skip'];
  readonly dropout?: number;
  readonly sigma?: number;
  readonly eta?: number;
  readonly momentum?: number;
  readonly threshold?: number;
  readonly alpha?: number;
  readonly zeroSteps?: number;
  readonly convention?: GuidanceOptions['convention'];
  readonly form?: ClassifierGuidanceOptions['form'];
  readonly weaker?: Denoiser;
  readonly classifier?: NoisyClassifier;
  readonly unconditional?: boolean;
}
/** What other flags say. */
type Flags = 'weaker' | 'classifier' | 'unconditional';
type Key = Exclude<keyof Parameters, Flags>;

interface Entry {
  readonly summary: string;
  /** Parameters it takes besides `convention`. */
  readonly takes: readonly Key[];
  create(scales: readonly number[], options: GuidanceOptions, parameters: Parameters): Guider;
}

const apgKeys = ['eta', 'momentum', 'threshold'] as const;
const apgOptions = ({ eta, momentum, threshold }: Parameters) => ({ eta, momentum, normThreshold: threshold });

/** The guiders by their names in `--guidance`. */
export const guiders: Readonly<Record<string, Entry>> = {
  cfg: { summary: 'classifier-free guidance', takes: [], create: ([s], options) => cfg(s, options) },
  pag: {
    summary: 'perturbed attention',
    takes: ['layers'],
    create: ([s], options, { layers }) => pag(s, { ...options, layers }),
  },
  'cfg-zero': {
    summary: 'CFG-Zero*',
    takes: ['zeroSteps'],
    create: ([s], options, { zeroSteps }) => cfgZeroStar(s, { ...options, zeroInitSteps: zeroSteps }),
  },
  apg: {
    summary: 'adaptive projected guidance',
    takes: apgKeys,
    create: ([s], options, more) => apg(s, { ...options, ...apgOptions(more) }),
  },
  'apg-mix': {
    summary: 'CFG, then APG: apg-mix=3:8',
    takes: apgKeys,
    create: ([s, late = s], options, more) => apgMix(s, late, { ...options, ...apgOptions(more) }),
  },
  auto: {
    summary: 'autoguidance',
    takes: ['layers', 'skip', 'dropout'],
    create: ([s], options, { layers, skip, dropout, weaker }) =>
      autoguidance(s, { ...options, ...(weaker ? { weaker } : { layers, skip, dropout }) }),
  },
  tcfg: { summary: 'tangential CFG', takes: [], create: ([s], options) => tangentialCfg(s, options) },
  fdg: {
    summary: 'frequency-decoupled, finest first: fdg=6:3',
    takes: [],
    create: (scales, options) => frequencyDecoupled(scales, options),
  },
  mambo: {
    summary: 'magnitude-aware',
    takes: ['alpha'],
    create: ([s], options, { alpha }) => magnitudeAware(s, { ...options, alpha }),
  },
  slg: {
    summary: 'skip-layer',
    takes: ['layers', 'skip', 'dropout'],
    create: ([s], options, { layers, skip, dropout }) => skipLayer(s, { ...options, layers, skip, dropout }),
  },
  seg: {
    summary: 'smoothed energy',
    takes: ['layers', 'sigma'],
    create: ([s], options, { layers, sigma }) => smoothedEnergy(s, { ...options, layers, sigma }),
  },
  classifier: {
    summary: 'by the gradient of --classifier; alone, from the unconditional prediction',
    takes: ['form'],
    create: ([s], options, parameters) => classifierGuider(s, options, parameters),
  },
};

function classifierGuider(scale: number, { interval, rescale }: GuidanceOptions, parameters: Parameters): Guider {
  const { classifier, unconditional, form } = parameters;
  if (!classifier)
    throw new UsageError('--guidance: classifier needs one: a run of train --model noisy-classifier, by --classifier');
  const guider = classifierGuidance(classifier, scale, { form, unconditional, interval });
  return rescale ? guide(guider, { interval, rescale }) : guider;
}

/** How many scales a guider's value may hold, parted by colons. */
const mostScales = (name: string): number => (name === 'fdg' ? 8 : name === 'apg-mix' ? 2 : 1);

const keyText = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** For `--help`. */
export const guidersHelp = `
Guidance: a number is classifier-free guidance; or name=scale, several of them parted by commas:
${Object.entries(guiders)
  .map(([name, { summary, takes }]) => {
    const keys = takes.map(keyText).join(', ');
    return `  ${name.padEnd(9)} ${summary}${keys && ` (${keys})`}`;
  })
  .join('\n')}
1 leaves the prediction as it is for those away from the unconditional prediction and for auto; 0 does for pag, slg,
seg and classifier. Further: interval=0.1:0.8 (shares of the run), rescale=0.7, convention=paper (0 is off) or standard (1 is), and the
keys in brackets; layers are numbers or parts of names, joined by +: layers=4+5, layers=mid_block, layers=-1.`;

/**
 * `3`, `cfg=4,pag=2`, with `interval=0.1:0.8`, `rescale=0.7`, `layers=4+5` ...; `none` is the plain conditional prediction.
 * @throws UsageError that says what was expected.
 */
export function parseGuidance(text: string, flags: Pick<Parameters, Flags> = {}): Guider {
  if (text.trim() === 'none') return unguided();
  const values = valuesOf(text);
  const names = [...values.keys()].filter((key) => Object.hasOwn(guiders, key));
  if (names.length === 0) throw expected(text);
  const unconditional = flags.unconditional && names.length === 1;
  const parameters: Parameters = { ...parametersOf(values, names, text), ...flags, unconditional };
  if (flags.weaker && !names.includes('auto'))
    throw new UsageError('--weaker: only the guider auto asks a weaker model');
  if (flags.classifier && !names.includes('classifier'))
    throw new UsageError('--classifier: only the guider classifier asks one, as in --guidance classifier=2');
  const { convention } = parameters;
  const [interval, rescale] = [values.get('interval'), values.get('rescale')];
  const whole = {
    interval: interval === undefined ? undefined : pair(interval, text),
    rescale: rescale === undefined ? 0 : number(rescale, text),
  };
  try {
    const made = names.map((name) => {
      const scales = values
        .get(name)!
        .split(':')
        .map((scale) => number(scale, text));
      if (scales.length > mostScales(name)) throw expected(text);
      return guiders[name].create(scales, names.length === 1 ? { ...whole, convention } : { convention }, parameters);
    });
    return made.length === 1 ? made[0] : guide(made[0], ...made.slice(1), whole);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--guidance: ${(error as Error).message.replace(/^guidance: /, '')}`);
  }
}

/**
 * Classifier-free guidance by several conditions at once, of these weights.
 * @throws UsageError for other guiders than cfg.
 */
export function composedGuidance(text: string, weights: Readonly<Record<string, number>>): Guider {
  const values = valuesOf(text);
  const odd = [...values.keys()].find((key) => !['cfg', 'interval', 'rescale'].includes(key));
  if (odd || !values.has('cfg'))
    throw new UsageError(`--classes: classes joined by + go with a guidance scale alone, got '${text}'`);
  const [interval, rescale] = [values.get('interval'), values.get('rescale')];
  return composeConditions(number(values.get('cfg')!, text), weights, {
    ...(interval !== undefined && { interval: pair(interval, text) }),
    ...(rescale !== undefined && { rescale: number(rescale, text) }),
  });
}

/** Values by key; a number alone is the scale of cfg. @throws UsageError for a part that is none, or a key given twice. */
function valuesOf(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const part of (/^[^=]+$/.test(text) ? `cfg=${text}` : text).split(',')) {
    const [, key, value] = /^\s*([a-z-]+)=(.+)$/.exec(part) ?? [];
    if (key === undefined || values.has(key)) throw expected(text);
    values.set(key, value.trim());
  }
  return values;
}

const readers: { readonly [K in Key]: (value: string, text: string) => NonNullable<Parameters[K]> } = {
  layers: (value) => value.split('+').map((part) => (/^-?\d+$/.test(part) ? Number(part) : part)),
  skip: (value, text) => oneOf(value, ['block', 'attention', 'feedForward', 'scores'], text),
  convention: (value, text) => oneOf(value, ['standard', 'paper'], text),
  dropout: number,
  sigma: number,
  eta: number,
  momentum: number,
  threshold: number,
  alpha: number,
  form: (value, text) => oneOf(value, ['score', 'mean'], text),
  zeroSteps: number,
};

/** @throws UsageError for a key that is unknown, or that none of the guiders takes. */
function parametersOf(values: ReadonlyMap<string, string>, names: readonly string[], text: string): Parameters {
  const found: [string, unknown][] = [];
  for (const [key, value] of values) {
    if (names.includes(key) || key === 'interval' || key === 'rescale') continue;
    const parameter = (Object.keys(readers) as Key[]).find((name) => keyText(name) === key);
    if (!parameter) throw expected(text);
    const takers = Object.keys(guiders).filter((name) => guiders[name].takes.includes(parameter));
    if (parameter !== 'convention' && !names.some((name) => takers.includes(name)))
      throw new UsageError(`--guidance: ${key} is for ${takers.join(', ')}, not for ${names.join(', ')}`);
    found.push([parameter, readers[parameter](value, text)]);
  }
  return Object.fromEntries(found);
}

function number(value: string, text: string): number {
  if (value.trim() === '' || Number.isNaN(Number(value))) throw expected(text);
  return Number(value);
}

function pair(value: string, text: string): readonly [number, number] {
  const [from, to, ...more] = value.split(':').map((part) => number(part, text));
  if (to === undefined || more.length > 0) throw expected(text);
  return [from, to];
}

function oneOf<T extends string>(value: string, allowed: readonly T[], text: string): T {
  const found = allowed.find((name) => name.toLowerCase() === value.replaceAll('-', '').toLowerCase());
  if (!found) throw expected(text);
  return found;
}

const expected = (text: string): UsageError =>
  new UsageError(
    `--guidance: expected a number, none, or like cfg=3,interval=0.1:0.8,rescale=0.7 with any of ${Object.keys(guiders).join(', ')}; got '${text}'`,
  );

/** `--guidance` with what flags of their own say. */
export function withGuidanceFlags(
  text: string,
  flags: { readonly layers?: string; readonly interval?: string; readonly rescale?: string },
): string {
  const added = Object.entries(flags).filter(([, value]) => value !== undefined);
  if (added.length === 0) return text;
  if (text.trim() === 'none') throw new UsageError(`--guidance-${added[0][0]}: there is no guidance to apply it to`);
  return [
    /^[^=]+$/.test(text) ? `cfg=${text}` : text,
    ...added.map(([key, value]) => `${key}=${value!.replaceAll(',', '+')}`),
  ].join();
}
