/**
 * A linear combination of what a sampler step knows, by name: the state slots ('x' and a sampler's own history),
 * 'prediction' (the denoiser's answer), 'x0' (the clean sample it implies, clipped), 'noise' (fresh, unit normal) and
 * 'gradient' (of a log-probability that guides the mean; its weight is the step's variance).
 * `{ x: 2, noise: 0.5 }` is 2 x + 0.5 noise.
 */
export type Linear = Readonly<Record<string, number>>;

export const x: Linear = { x: 1 };
export const prediction: Linear = { prediction: 1 };
export const x0: Linear = { x0: 1 };
export const noise: Linear = { noise: 1 };
export const gradient: Linear = { gradient: 1 };
/** A history slot of the sampler's own. */
export const slot = (name: string): Linear => ({ [name]: 1 });

/** The weighted sum of linear combinations; terms of weight 0 are left out. */
export function sum(...terms: readonly (readonly [weight: number, form: Linear])[]): Linear {
  const result: Record<string, number> = {};
  for (const [weight, form] of terms) {
    if (weight === 0) continue;
    for (const [name, coefficient] of Object.entries(form)) result[name] = (result[name] ?? 0) + weight * coefficient;
  }
  return result;
}

/** `form` with every `name` in it replaced by another combination. */
export function substitute(form: Linear, name: string, replacement: Linear): Linear {
  const { [name]: weight = 0, ...rest } = form;
  return sum([1, rest], [weight, replacement]);
}
