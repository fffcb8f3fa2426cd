import { type PlanOptions, type Sampler, usesNoise } from '../samplers/index.js';

/**
 * Refuses to sample a flow that was trained on coupled pairs (`--coupling ot`, reflow) by way of its score. The velocity
 * of a flow gives the score where noise and data were paired at random; of other pairs it gives the way of the ODE only.
 * @param name what the caller calls the sampler.
 * @throws RangeError for a sampler that adds noise: of an SDE, ancestral, a predictor-corrector.
 */
export function checkCoupledFlow(sampler: Sampler, plan: PlanOptions, name = sampler.className): void {
  const table = sampler.plan(plan);
  if (table.calls.some((_, k) => usesNoise(table, k)))
    throw new RangeError(
      `${name} adds noise, which needs the score: this flow was trained on coupled pairs of noise and data, whose velocity is not the score's; use a sampler of its ODE, such as flow-euler, flow-heun, ddim, dpmpp-2m or unipc`,
    );
}
