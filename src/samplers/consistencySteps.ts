import { linspace } from '../diffusion/index.js';

interface ConsistencySteps {
  readonly name: string;
  readonly total: number;
  /** How many steps the distillation used; the timesteps are picked out of these. */
  readonly originalSteps: number;
  /** The share of the trajectory that is run, counted from its end: image-to-image. */
  readonly strength: number;
  readonly steps: number;
  readonly timesteps?: readonly number[];
  /** The timesteps of the distillation, ascending. */
  readonly original: readonly number[];
}

/**
 * Timesteps for models distilled to few steps (LCM, TCD): even places among the distillation's own.
 * @throws RangeError for more steps than there are places, or timesteps that do not descend inside 0..T-1.
 */
export function consistencyTimesteps(request: ConsistencySteps): number[] {
  const { name, total, originalSteps, strength, steps, timesteps, original } = request;
  if (originalSteps > total)
    throw new RangeError(
      `${name}: originalInferenceSteps ${originalSteps}, but the model knows only ${total} timesteps`,
    );
  if (timesteps) {
    const wrong = timesteps.findIndex((t, i) => !(t >= 0 && t < (timesteps[i - 1] ?? total)));
    if (wrong >= 0)
      throw new RangeError(`${name}: timesteps must descend inside 0..${total - 1}, got ${timesteps.join(', ')}`);
    const kept = Math.min(Math.floor(timesteps.length * strength), timesteps.length);
    return timesteps.slice(timesteps.length - kept);
  }
  if (steps > original.length || steps > originalSteps)
    throw new RangeError(
      `${name}: ${steps} steps, but there are ${Math.min(original.length, originalSteps)} to pick from`,
    );
  const descending = [...original].reverse();
  return Array.from(
    linspace(0, descending.length, steps + 1).slice(0, steps),
    (place) => descending[Math.floor(place)],
  );
}

/** The places of a distillation over `originalSteps` even steps: k - 1, 2k - 1 ... */
export const distilledTimesteps = (total: number, originalSteps: number, strength: number): number[] =>
  Array.from(
    { length: Math.floor(originalSteps * strength) },
    (_, i) => (i + 1) * Math.floor(total / originalSteps) - 1,
  );
