import { describe, expect, it } from 'vitest';
import type { PredictionType } from '../diffusion/index.js';
import { configText, parseConfigText } from '../io/index.js';
import { betaQuantile } from './betaQuantile.js';
import { ancestral } from './eulerAncestral.js';
import {
  ddim,
  ddimInverse,
  ddpm,
  deis,
  dpmSolverMultistep,
  dpmSolverSinglestep,
  edmDpmSolverMultistep,
  edmEuler,
  euler,
  eulerAncestral,
  flowMatchEuler,
  flowMatchHeun,
  heun,
  kdpm2,
  kdpm2Ancestral,
  type Linear,
  lcm,
  lms,
  type PlanOptions,
  pndm,
  type Sampler,
  type SamplerPlan,
  samplerFromConfig,
  samplers,
  tcd,
  unipc,
  usesNoise,
} from './index.js';

/** Runs a plan on one number in float64, with a denoiser that knows the data: always `truth`. */
function run(plan: SamplerPlan, type: PredictionType, truth: number, noise = 0.7): number[] {
  let state: Record<string, number> = { x: plan.initialScale * noise };
  return plan.calls.map((call) => {
    // what the denoiser sees has the marginal it was trained on
    const { alpha, sigma } = { alpha: call.alpha * call.inputScale, sigma: call.sigma * call.inputScale };
    const x = state.x * call.inputScale;
    const epsilon = (x - alpha * truth) / sigma;
    const answers = {
      epsilon,
      x0: truth,
      v: alpha * epsilon - sigma * truth,
      flow: epsilon - truth,
      score: -epsilon / sigma,
    };
    const known: Record<string, number> = { ...state, prediction: answers[type], noise };
    const evaluate = (form: Linear) => Object.entries(form).reduce((s, [name, w]) => s + w * (known[name] ?? 0), 0);
    known.x0 = evaluate(call.x0);
    if (call.slope) known.slope = (state.x - known.x0) / call.slope;
    state = Object.fromEntries(Object.entries(call.next).map(([slot, form]) => [slot, evaluate(form)]));
    return state.x;
  });
}
const last = (values: number[]) => values[values.length - 1];

const exact = { clipSample: false } as const;
const cases: [string, Sampler, PlanOptions & Record<string, unknown>][] = [
  ['ddpm', ddpm(exact) as Sampler, { steps: 7 }],
  ['ddpm custom', ddpm(exact) as Sampler, { timesteps: [900, 300, 20] }],
  ['ddim', ddim(exact) as Sampler, { steps: 5 }],
  ['ddim, noisy, v', ddim({ ...exact, predictionType: 'v_prediction' }) as Sampler, { steps: 5, eta: 0.8 }],
  ['ddim, x0', ddim({ ...exact, predictionType: 'sample', timestepSpacing: 'trailing' }) as Sampler, { steps: 4 }],
  ['euler', euler() as Sampler, { steps: 6 }],
  ['euler karras v', euler({ useKarrasSigmas: true, predictionType: 'v_prediction' }) as Sampler, { steps: 6 }],
  ['euler own sigmas', euler() as Sampler, { sigmas: [10, 3, 1, 0] }],
  ['euler with churn', euler({ predictionType: 'sample' }, { sChurn: 3 }) as Sampler, { steps: 6 }],
  ['euler ancestral', eulerAncestral() as Sampler, { steps: 6 }],
  ['heun', heun({ useKarrasSigmas: true }) as Sampler, { steps: 6 }],
  ['lms', lms({ predictionType: 'v_prediction' }) as Sampler, { steps: 8 }],
  ['kdpm2', kdpm2() as Sampler, { steps: 6 }],
  ['kdpm2 ancestral', kdpm2Ancestral() as Sampler, { steps: 6 }],
  ['pndm plms', pndm({ skipPrkSteps: true, setAlphaToOne: true }) as Sampler, { steps: 8 }],
  ['dpm++ 1', dpmSolverMultistep({ solverOrder: 1 }) as Sampler, { steps: 6 }],
  ['dpm++ 2', dpmSolverMultistep() as Sampler, { steps: 20 }],
  ['dpm++ 3', dpmSolverMultistep({ solverOrder: 3, solverType: 'heun' }) as Sampler, { steps: 9 }],
  ['dpm++ sde', dpmSolverMultistep({ algorithmType: 'sde-dpmsolver++', useBetaSigmas: true }) as Sampler, { steps: 9 }],
  [
    'dpm++ flow',
    dpmSolverMultistep({ useFlowSigmas: true, predictionType: 'flow_prediction' }) as Sampler,
    { steps: 9 },
  ],
  ['dpm++ singlestep', dpmSolverSinglestep({ solverOrder: 3 }) as Sampler, { steps: 9 }],
  ['unipc', unipc({ solverOrder: 3 }) as Sampler, { steps: 9 }],
  ['unipc flow', unipc({ useFlowSigmas: true, predictionType: 'flow_prediction' }) as Sampler, { steps: 9 }],
  ['flow heun', flowMatchHeun({ shift: 3 }) as Sampler, { steps: 4 }],
  ['flow', flowMatchEuler({ shift: 3 }) as Sampler, { steps: 4 }],
  ['flow stochastic', flowMatchEuler({ stochasticSampling: true }) as Sampler, { steps: 4 }],
];

describe('every sampler', () => {
  it.each(cases)('%s finds the data with a perfect denoiser', (_, sampler, options) => {
    const plan = sampler.plan(options);
    expect(last(run(plan, sampler.predictionType, 0.3))).toBeCloseTo(0.3, 6);
  });

  it.each(cases)('%s keeps x on its own marginal', (_, sampler, options) => {
    // Denoiser and noise both fixed at the same values: x stays alpha x0 + sigma noise when no fresh noise is added.
    const plan = sampler.plan(options);
    if (plan.calls.some((_, k) => usesNoise(plan, k))) return;
    const [truth, noise] = [0.3, 0.7];
    const start = plan.calls[0].alpha * truth + plan.calls[0].sigma * noise;
    const values = run({ ...plan, initialScale: start / noise }, sampler.predictionType, truth, noise);
    for (const [k, call] of plan.calls.slice(1).entries())
      expect(values[k]).toBeCloseTo(call.alpha * truth + call.sigma * noise, 5);
  });

  it.each(cases)('%s starts anywhere', (_, sampler, options) => {
    const plan = sampler.plan({ ...options, start: 1 });
    expect(plan.calls.map((call) => call.timestep)).toEqual(
      sampler
        .plan(options)
        .calls.slice(1)
        .map((call) => call.timestep),
    );
    expect(last(run(plan, sampler.predictionType, -0.2))).toBeCloseTo(-0.2, 6);
  });

  it.each(samplers.map((make) => [make.className, make] as const))('%s writes a config it reads', (_, make) => {
    const sampler = make({});
    const again = samplerFromConfig(configText(sampler.toConfig()));
    expect([again.className, again.config]).toEqual([sampler.className, sampler.config]);
  });
});

describe('relations between samplers', () => {
  const close = (a: number[], b: number[]) => {
    for (const [i, x] of a.entries()) expect(x).toBeCloseTo(b[i], 6);
  };

  it('DPM-Solver++ of order 1 is DDIM', () => {
    const ours = run(
      dpmSolverMultistep({ solverOrder: 1, timestepSpacing: 'trailing' }).plan({ steps: 10 }),
      'epsilon',
      0.1,
    );
    const theirs = run(ddim({ ...exact, timestepSpacing: 'trailing' }).plan({ steps: 10 }), 'epsilon', 0.1);
    close(ours.slice(0, -1), theirs.slice(0, -1));
  });

  it('DDIM with eta 1 is DDPM with the small variance', () => {
    const ours = run(ddim(exact).plan({ steps: 10, eta: 1 }), 'epsilon', 0.1);
    close(ours, run(ddpm(exact).plan({ steps: 10 }), 'epsilon', 0.1));
  });
});

describe('samplers with their own ends', () => {
  it('LCM denoises up to its boundary condition', () => {
    const values = run(lcm().plan({ steps: 4 }), 'epsilon', 0.3);
    expect(last(values)).toBeCloseTo(0.3, 4);
  });

  it('DEIS stops at the smallest sigma', () => {
    const plan = deis({ solverOrder: 3 }).plan({ steps: 10 });
    const ratio = plan.sigmas![plan.sigmas!.length - 1];
    const [truth, noise] = [0.3, 0.7];
    const { alpha, sigma } = plan.calls[0];
    const start = { ...plan, initialScale: (alpha * truth + sigma * noise) / noise };
    const at = 1 / Math.sqrt(1 + ratio ** 2);
    expect(last(run(start, 'epsilon', truth, noise))).toBeCloseTo(at * (truth + ratio * noise), 4);
  });

  it('TCD stops at the first trained level', () => {
    const sampler = tcd({}, { eta: 1 });
    const { alpha, sigma } = sampler.marginal(0);
    expect(last(run(sampler.plan({ steps: 1 }), 'epsilon', 0.3, 0.7))).toBeCloseTo(alpha * 0.3 + sigma * 0.7, 2);
  });

  it('inverted DDIM leads from data to noise, along the way that DDIM takes back', () => {
    const sampler = ddimInverse({ ...exact, setAlphaToOne: false });
    const plan = sampler.plan({ steps: 10 });
    const [truth, noise] = [0.3, 0.7];
    const onMarginal = ({ alpha, sigma }: { alpha: number; sigma: number }) => alpha * truth + sigma * noise;
    const values = run({ ...plan, initialScale: onMarginal(plan.calls[0]) / noise }, 'epsilon', truth, noise);
    expect(plan.calls[0].timestep).toBeLessThan(plan.calls[9].timestep);
    expect(last(values)).toBeCloseTo(onMarginal(sampler.marginal(plan.calls[9].timestep)), 6);
  });

  it("EDM's network is preconditioned to unit variance", () => {
    const { calls } = edmEuler().plan({ steps: 5 });
    for (const { inputScale, sigma, x0 } of calls) {
      expect(inputScale ** 2 * (sigma ** 2 + 0.25)).toBeCloseTo(1, 9);
      expect(x0.x ** 2 * (sigma ** 2 + 0.25) + x0.prediction ** 2).toBeCloseTo(0.25, 9);
    }
  });
});

describe('what plans hold', () => {
  it('an infinite x0 at zero SNR is finite enough for the clip', () => {
    const config = { rescaleBetasZeroSnr: true, timestepSpacing: 'trailing' } as const;
    for (const { calls } of [ddim(config).plan({ steps: 5 }), ddpm(config).plan({ steps: 5 })])
      expect(calls[0].x0).toEqual({ x: 2 ** 100, prediction: -(2 ** 100) });
  });

  it('DEIS takes the noise of a v prediction through x0, where flow sigmas make the two differ', () => {
    const sampler = deis({ useFlowSigmas: true, predictionType: 'v_prediction', solverOrder: 1 });
    const [{ alpha, sigma, next }, to] = sampler.plan({ steps: 4, start: 1 }).calls;
    const weight = to.alpha * (to.sigma / to.alpha - sigma / alpha);
    expect(next.x.x).toBeCloseTo(to.alpha / alpha + (weight * (1 - alpha ** 2)) / sigma, 5);
    expect(next.x.prediction).toBeCloseTo(weight * alpha, 5);
  });

  it("the flow's Heun divides by the level of each call, as in diffusers", () => {
    const { calls } = flowMatchHeun({ shift: 3 }).plan({ steps: 3 });
    expect(calls.map((call) => call.slope)).toEqual(calls.map((call) => call.sigma));
  });

  it("EDM's DPM-Solver ends at sigmaMin even after one step, as in diffusers", () => {
    const config = { finalSigmasType: 'sigma_min', sigmaMax: 5 } as const;
    expect([...edmDpmSolverMultistep(config).plan({ steps: 1 }).sigmas!]).toEqual([5, Math.fround(0.002)]);
    expect([...edmEuler(config).plan({ steps: 1 }).sigmas!]).toEqual([5, 5]);
  });

  it("UniPC's whole times are cut from terminal shifts that are rounded as in diffusers", () => {
    const config = { useFlowSigmas: true, predictionType: 'flow_prediction' } as const;
    const times = (flowShift: number, shiftTerminal: number, steps: number) =>
      unipc({ ...config, flowShift, shiftTerminal })
        .plan({ steps })
        .calls.map((call) => call.timestep);
    expect(times(3, 0.1, 14)[13]).toBe(99);
    expect(times(1, 0.02, 16)[12]).toBe(215);
  });

  it('ancestral steps are rounded as in diffusers', () => {
    const [sigma, next] = [14.614643096923828, 0.029167499393224716];
    expect(ancestral(sigma, next)).toEqual({ up: 0.02916744165122509, down: 5.8103738410864025e-5 });
    expect(ancestral(4096, 0.01).down).toBeCloseTo(0.01 ** 2 / 4096, 12); // float32 leaves 0
    expect(ancestral(0.03, 0)).toEqual({ up: 0, down: 0 });
  });

  it("EDM's only exponential sigma is the smallest, as in diffusers", () => {
    const first = (sigmaSchedule: 'karras' | 'exponential', steps: number) =>
      edmEuler({ sigmaSchedule }).plan({ steps }).sigmas![0];
    expect([first('exponential', 1), first('karras', 1)]).toEqual([0.002, 80].map(Math.fround));
    expect(first('exponential', 5)).toBeCloseTo(80, 4);
  });

  it("TCD's point between two times is cut down in float32, where 0.7 times 330 is 231", () => {
    const sampler = tcd({ predictionType: 'sample' }, { eta: 0.3 });
    const [call] = sampler.plan({ timesteps: [416, 330] }).calls;
    const [next, between] = [sampler.marginal(330), sampler.marginal(231)];
    expect(call.next.x.noise).toBeCloseTo(Math.sqrt(1 - (next.alpha / between.alpha) ** 2), 9);
  });

  it('timesteps are spaced as in Table 2 of Lin et al. 2023', () => {
    const times = (config: object) =>
      ddim({ ...exact, ...config })
        .plan({ steps: 4 })
        .calls.map((c) => c.timestep);
    expect(times({})).toEqual([750, 500, 250, 0]);
    expect(times({ stepsOffset: 1 })).toEqual([751, 501, 251, 1]);
    expect(times({ timestepSpacing: 'trailing' })).toEqual([999, 749, 499, 249]);
    expect(times({ timestepSpacing: 'linspace' })).toEqual([999, 666, 333, 0]);
  });

  it("trailing halves are rounded as numpy's arange leaves them", () => {
    const config = { numTrainTimesteps: 999, timestepSpacing: 'trailing', skipPrkSteps: true } as const;
    const times = pndm(config)
      .plan({ steps: 50 })
      .calls.map((c) => c.timestep);
    expect(times[26]).toBe(498);
  });

  it('the shift of a flow counts twice, as in diffusers', () => {
    const times = flowMatchEuler({ shift: 3 })
      .plan({ steps: 4 })
      .calls.map((c) => Math.round(c.timestep * 100) / 100);
    expect(times).toEqual([1000, 857.69, 602.15, 8.93]);
  });

  it('noise is asked for only where it is used', () => {
    const uses = (plan: SamplerPlan) => plan.calls.map((_, k) => usesNoise(plan, k));
    expect(uses(ddpm().plan({ steps: 3 }))).toEqual([true, true, false]);
    expect(uses(ddim().plan({ steps: 3 }))).toEqual([false, false, false]);
    expect(uses(ddim({}, { eta: 1 }).plan({ steps: 3 }))).toEqual([true, true, false]);
  });

  it('is one layout for any number of steps, so nothing recompiles', () => {
    const sampler = dpmSolverMultistep();
    expect(sampler.plan({ steps: 20 }).layout.key).toBe(sampler.plan({ steps: 33 }).layout.key);
    expect(sampler.plan({ steps: 20 }).layout.slots).toEqual(['x', 'm1']);
  });
});

describe('errors', () => {
  it('name the field, what was expected and what came', () => {
    expect(() => ddim({ betaSchedule: 'foo' as 'linear' })).toThrow(
      /^DDIMScheduler: betaSchedule: expected one of "linear"\|.*, got "foo"$/,
    );
    expect(() => samplerFromConfig({ _class_name: 'DDIMScheduler', clip_smaple: true })).toThrow('clipSmaple');
    expect(() => samplerFromConfig({ _class_name: 'FooScheduler' })).toThrow(
      /expected one of .*DDIMScheduler.*"FooScheduler"/,
    );
    expect(() => euler({ useKarrasSigmas: true, useBetaSigmas: true })).toThrow('useKarrasSigmas, useBetaSigmas');
  });

  it('refuse plans that cannot be', () => {
    expect(() => ddim().plan({ steps: 0 })).toThrow('DDIMScheduler: plan: steps');
    expect(() => ddim().plan({ steps: 1001 })).toThrow('1001 steps, but the model knows only 1000 timesteps');
    expect(() => ddim().plan({ steps: 10, start: 10 })).toThrow('start 10 out of range 0..9');
    expect(() => ddpm().plan({ steps: 3, timesteps: [3] })).toThrow('expected one of steps, timesteps, sigmas, got');
    expect(() => ddpm().plan({ timesteps: [1000] })).toThrow('timestep 1000 out of range 0..999');
    expect(() => ddpm().plan({ timesteps: [5, 7] })).toThrow('timesteps must descend');
    expect(() => flowMatchEuler({ useDynamicShifting: true }).plan({ steps: 4 })).toThrow('needs mu');
    expect(() => dpmSolverMultistep({ algorithmType: 'dpmsolver' })).toThrow('needs finalSigmasType sigma_min');
  });

  it('say why a zero-SNR schedule cannot start from a noise prediction', () => {
    const config = { ...exact, rescaleBetasZeroSnr: true, timestepSpacing: 'trailing' as const };
    expect(() => ddim(config).plan({ steps: 5 })).toThrow('needs a v or x0 prediction');
    expect(ddim({ ...config, predictionType: 'v_prediction' }).plan({ steps: 5 }).calls).toHaveLength(5);
  });
});

describe('scheduler_config.json', () => {
  it("without betas means Stable Diffusion's for Heun, KDPM2, LCM and TCD, as in diffusers", () => {
    const latent = samplers.filter(({ className }) => {
      const { betaStart, betaEnd } = samplerFromConfig({ _class_name: className }).config;
      return betaStart === 0.00085 && betaEnd === 0.012;
    });
    expect(latent.map(({ className }) => className)).toEqual([
      'HeunDiscreteScheduler',
      'KDPM2DiscreteScheduler',
      'KDPM2AncestralDiscreteScheduler',
      'LCMScheduler',
      'TCDScheduler',
    ]);
  });

  it('is read with the fields of other schedulers that old files carry, and with a bare Infinity', () => {
    const text =
      '{"_class_name": "DDIMScheduler", "_diffusers_version": "0.6.0", "solver_order": 2, "steps_offset": 1}';
    expect((samplerFromConfig(text).config as { stepsOffset: number }).stepsOffset).toBe(1);
    expect(parseConfigText('{"lambda_min_clipped": -Infinity}')).toEqual({ lambda_min_clipped: -Infinity });
  });
});

describe('betaQuantile', () => {
  it('agrees with closed forms', () => {
    for (const p of [1e-6, 0.01, 0.3, 0.5, 0.77, 0.999]) {
      expect(betaQuantile(p, 1, 1)).toBeCloseTo(p, 12);
      expect(betaQuantile(p, 0.5, 0.5)).toBeCloseTo(Math.sin((Math.PI * p) / 2) ** 2, 12);
      expect(betaQuantile(p, 2, 1)).toBeCloseTo(Math.sqrt(p), 12);
      expect(betaQuantile(p, 0.6, 0.6)).toBeCloseTo(1 - betaQuantile(1 - p, 0.6, 0.6), 12);
    }
    expect([0, 1].map((p) => betaQuantile(p, 0.6, 0.6))).toEqual([0, 1]);
  });
});
