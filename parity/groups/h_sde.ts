import { z } from 'zod';
import { type NdArray, ndarray, toFloat32 } from '../../src/array/index.js';
import {
  perSample,
  priorLogProb,
  reverseChain,
  reverseDrift,
  type Sde,
  scoreMatchingLoss,
  scoreOfNetwork,
  sdeTimes,
  subVpSde,
  veSde,
  vpSde,
} from '../../src/diffusion/index.js';
import {
  applyStep,
  bitsPerDimension,
  coefficientsOf,
  initialState,
  logLikelihood,
  predictorCorrector,
  probabilityFlow,
  type SamplerPlan,
  scoreDivergence,
} from '../../src/samplers/index.js';
import {
  type Compiled,
  compile,
  constant,
  conv2d,
  gradients,
  linear,
  silu,
  stack,
  type Tensor,
  variable,
} from '../../src/tensor/index.js';
import type { Adapter } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const range = z.object({
  N: z.number(),
  b: z.tuple([z.number(), z.number()]).optional(),
  beta_min: z.number().optional(),
  beta_max: z.number().optional(),
  sigma_min: z.number().optional(),
  sigma_max: z.number().optional(),
});

/** The SDE of a case: by its symbol, or by the end of its name where the symbol is a sampler. */
function sdeOf({ kind, name, config }: ReferenceCase): { sde: Sde; count: number; config: object } {
  const { N, b, ...given } = range.parse(config);
  const which = /(subvpsde|vesde|vpsde)/i.exec(/sde$/i.test(kind) ? kind : name)?.[1]?.toLowerCase();
  if (which === 'vesde') {
    const own = { sigmaMin: given.sigma_min ?? b?.[0], sigmaMax: given.sigma_max ?? b?.[1] };
    return { sde: veSde(own), count: N, config: { sde: 've', ...own } };
  }
  const own = { betaMin: given.beta_min ?? b?.[0], betaMax: given.beta_max ?? b?.[1] };
  const sub = which === 'subvpsde';
  return { sde: sub ? subVpSde(own) : vpSde(own), count: N, config: { sde: sub ? 'subvp' : 'vp', ...own } };
}

/** Score of data N(mean, s0^2 I) at times [N]: -(x - alpha mean) / (alpha^2 s0^2 + sigma^2). */
function gaussianScore(reference: ReferenceCase, sde: Sde): (x: Tensor, times: Tensor) => Tensor {
  const { s0 } = reference.read(z.object({ s0: z.number() }));
  const mean = constant(toFloat32(reference.input('data_mean')));
  return (x, times) => {
    const { alpha, sigma } = sde.levels(times);
    const variance = alpha
      .square()
      .mul(s0 ** 2)
      .add(sigma.square());
    return x.sub(perSample(alpha, x).mul(mean)).div(perSample(variance, x)).neg();
  };
}

const numbers = (array: NdArray): number[] => Array.from(array.data as Float32Array);

/** Sums of x and score with a weight of each for every sample. */
const weighed = compile((x: Tensor, ofX: Tensor, score: Tensor, ofScore: Tensor) =>
  perSample(ofX, x).mul(x).add(perSample(ofScore, x).mul(score)),
);

/** The SDE itself: marginals, forward and reverse drift and diffusion, chain and prior. */
const process: Adapter = async (reference) => {
  const { sde, count } = sdeOf(reference);
  const x = toFloat32(reference.input('x'));
  const times = numbers(reference.input('t'));
  const score = await compile(gaussianScore(reference, sde))(x, toFloat32(reference.input('t')));
  const combine = (of: (t: number) => { x: number; score?: number }, at = times) =>
    weighed(x, ndarray(at.map((t) => of(t).x)), score, ndarray(at.map((t) => of(t).score ?? 0)));
  /** The source takes x off again after scaling it, in float32, and loses digits where the step is small. */
  const forward = async (at: number[]) => {
    const drift = (t: number) => sde.chain(t, count).drift;
    if (sde.name !== 'vp') return combine((t) => ({ x: drift(t) }), at);
    const scaled = await combine((t) => ({ x: 1 + drift(t) }), at);
    return ndarray(
      (scaled.data as Float32Array).map((value, i) => value - x.data[i]),
      x.shape,
    );
  };
  const stepped = await forward(times);
  const backward = async (flow: boolean) => {
    const guided = await combine((t) => ({ x: 0, score: reverseChain(sde, t, count, flow).score }));
    return ndarray(
      (guided.data as Float32Array).map((value, i) => value + Number(stepped.data[i])),
      x.shape,
    );
  };
  const list = (of: (t: number) => number, at = times) => ndarray(at.map(of));
  const zero = numbers(reference.input('t_zero'));
  return {
    'out.mean': await combine((t) => ({ x: sde.marginal(t).alpha })),
    'out.std': list((t) => sde.marginal(t).sigma),
    'out.drift': await combine((t) => ({ x: sde.drift(t) })),
    'out.diffusion': list((t) => sde.diffusion(t)),
    'out.disc_f': stepped,
    'out.disc_G': list((t) => sde.chain(t, count).diffusion),
    'out.disc_f_t0': await forward(zero),
    'out.disc_G_t0': list((t) => sde.chain(t, count).diffusion, zero),
    'out.prior_logp': ndarray(Float32Array.from(priorLogProb(sde, x))),
    'out.score': score,
    'out.rev_sde.drift': await combine((t) => reverseDrift(sde, t)),
    'out.rev_sde.diffusion': list((t) => reverseDrift(sde, t).noise),
    'out.rev_sde.disc_f': await backward(false),
    'out.rev_sde.disc_G': list((t) => reverseChain(sde, t, count).noise),
    'out.rev_ode.drift': await combine((t) => reverseDrift(sde, t, true)),
    'out.rev_ode.disc_f': await backward(true),
    'out.rev_ode.disc_G': list((t) => reverseChain(sde, t, count, true).noise),
  };
};

const samplerCall = z.object({
  predictor: z.string().default('none'),
  corrector: z.string().default('none'),
  snr: z.number().default(0.16),
  n_steps: z.number().default(1),
  denoise: z.boolean().default(true),
  eps: z.number().default(1e-3),
  probability_flow: z.boolean().default(false),
});

type StepGraph = Compiled<[Tensor, readonly Tensor[], Tensor, Tensor], { readonly state: readonly Tensor[] }>;

const stepGraph = (plan: SamplerPlan, score: (x: Tensor, times: Tensor) => Tensor): StepGraph =>
  compile((coefficients: Tensor, state: readonly Tensor[], noise: Tensor, times: Tensor) => ({
    state: applyStep(plan.layout, { coefficients, state, noise, prediction: score(state[0], times) }).state,
  }));

const part = (array: NdArray<'float32'>, k: number): NdArray<'float32'> => {
  const size = array.data.length / array.shape[0];
  return ndarray(array.data.slice(k * size, (k + 1) * size), array.shape.slice(1));
};

/** A whole run of predictors and correctors. */
const sampling: Adapter = async (reference) => {
  const { sde, count, config } = sdeOf(reference);
  const { call } = reference.read(z.object({ call: samplerCall }));
  const sampler = predictorCorrector({
    ...config,
    predictionType: 'score',
    predictor: call.predictor as 'none',
    corrector: call.corrector as 'none',
    snr: call.snr,
    correctorSteps: call.n_steps,
    samplingEps: call.eps,
    probabilityFlow: call.probability_flow,
  });
  const plan = sampler.plan({ steps: count, denoise: call.denoise });
  const noise = toFloat32(reference.input('noise'));
  const step = stepGraph(plan, gaussianScore(reference, sde));
  const start = toFloat32(reference.input('x_init'));
  let state: readonly NdArray[] = initialState(plan.layout, start);
  const perTime = plan.calls.length / count;
  const times = sdeTimes(count, call.eps);
  for (const k of plan.calls.keys()) {
    const t = ndarray(new Float32Array(start.shape[0]).fill(times[Math.floor(k / perTime)]));
    ({ state } = await step(coefficientsOf(plan, k), state, part(noise, k), t));
  }
  await step.release();
  return { 'out.x': state[0] };
};

/** Call k without fresh noise. */
function silenced(plan: SamplerPlan, k: number): NdArray {
  const row = coefficientsOf(plan, k).data;
  return ndarray(row.map((c, i) => (['noise', 'shake'].includes(plan.layout.terms[i - 1]?.term) ? 0 : c)));
}

/**
 * One update of a predictor or a corrector. The samples stand at different times, and Langevin steps couple them: the
 * last calls of a plan that ends at a sample's time, on the whole batch, give that sample's row.
 */
const update =
  (what: 'predictor' | 'corrector', kind: string): Adapter =>
  async (reference) => {
    const { sde, count, config } = sdeOf(reference);
    const { call } = reference.read(z.object({ call: samplerCall }));
    const times = toFloat32(reference.input('t'));
    const plans = numbers(times).map((t) =>
      predictorCorrector({
        ...config,
        predictionType: 'score',
        predictor: 'none',
        corrector: 'none',
        [what]: kind,
        snr: call.snr,
        correctorSteps: call.n_steps,
        samplingEps: t,
        probabilityFlow: call.probability_flow,
      }).plan({ steps: count, denoise: false }),
    );
    const score = gaussianScore(reference, sde);
    const noise = toFloat32(reference.input('noise'));
    const calls = what === 'corrector' ? call.n_steps : 1;
    let [x, mean] = [toFloat32(reference.input('x')), toFloat32(reference.input('x'))];
    const row = async (plan: SamplerPlan, n: number, coefficients: NdArray, drawn: NdArray) => {
      const step = stepGraph(plan, score);
      const { state } = await step(coefficients, [x], drawn, times);
      await step.release();
      return part(state[0] as NdArray<'float32'>, n);
    };
    for (let k = 0; k < calls; k++) {
      const at = (plan: SamplerPlan) => plan.calls.length - calls + k;
      const rows = (of: (plan: SamplerPlan) => NdArray) =>
        Promise.all(plans.map((plan, n) => row(plan, n, of(plan), part(noise, k))));
      const [next, still] = [
        await rows((plan) => coefficientsOf(plan, at(plan))),
        await rows((plan) => silenced(plan, at(plan))),
      ];
      [x, mean] = [stacked(next), stacked(still)];
    }
    return { 'out.x': x, 'out.x_mean': mean };
  };

const stacked = (rows: readonly NdArray<'float32'>[]): NdArray<'float32'> =>
  ndarray(Float32Array.from(rows.flatMap((row) => [...row.data])), [rows.length, ...rows[0].shape]);

const tolerances = z.object({
  rtol: z.number().default(1e-5),
  atol: z.number().default(1e-5),
  eps: z.number(),
  denoise: z.boolean().default(false),
});

const filled = (count: number, t: number): NdArray => ndarray(new Float32Array(count).fill(t));

/** The probability-flow ODE from noise to data. */
const flow: Adapter = async (reference) => {
  const { sde, count } = sdeOf(reference);
  const { rtol, atol, eps, denoise } = reference.read(z.object({ call: tolerances })).call;
  const score = compile(gaussianScore(reference, sde));
  const ask = (x: NdArray, t: number) => score(x, filled(x.shape[0], t));
  const start = toFloat32(reference.input('z'));
  const { x } = await probabilityFlow(sde, ask, start, { to: eps, rtol, atol, ...(denoise && { denoise: count }) });
  await score.release();
  return { 'out.x': x };
};

/** Bits per dimension, codes, and the true density of the Gaussian data. */
const likelihood: Adapter = async (reference) => {
  const { sde } = sdeOf(reference);
  const { rtol, atol, eps } = reference.read(z.object({ call: tolerances })).call;
  const { s0 } = reference.read(z.object({ s0: z.number() }));
  const data = toFloat32(reference.input('data'));
  const graph = compile((x: Tensor, times: Tensor, probe: Tensor) =>
    scoreDivergence(gaussianScore(reference, sde), x, times, probe),
  );
  const probe = toFloat32(reference.input('epsilon'));
  const ask = (x: NdArray, t: number, e: NdArray) => graph(x, filled(x.shape[0], t), e);
  const { logProb, latents } = await logLikelihood(sde, ask, data, probe, { from: eps, rtol, atol });
  await graph.release();
  const size = data.data.length / data.shape[0];
  const mean = reference.input('data_mean').data as Float32Array;
  const exact = Array.from({ length: data.shape[0] }, (_, n) => {
    const squares = part(data, n).data.reduce((sum, x, i) => sum + ((x - mean[i]) / s0) ** 2, 0);
    return -0.5 * (squares + size * Math.log(2 * Math.PI * s0 ** 2));
  });
  return {
    'out.bpd': ndarray(Float32Array.from(logProb, (p) => bitsPerDimension(p, size))),
    'out.z': latents,
    'out.exact_data_logp': ndarray(exact),
  };
};

/** The loss of a small network, c2(silu(c1(x) + e([cos label, sin label]))), with its gradients. */
const loss: Adapter = async (reference) => {
  const { sde } = sdeOf(reference);
  const { call } = reference.read(
    z.object({
      call: z.object({
        reduce_mean: z.boolean().default(true),
        likelihood_weighting: z.boolean().default(true),
        eps: z.number().default(1e-5),
      }),
    }),
  );
  const weights = new Map([...reference.weights].map(([name, array]) => [name, variable(array, { name })]));
  const weight = (name: string): Tensor => weights.get(name) ?? constant(0);
  const network = (x: Tensor, labels: Tensor): Tensor => {
    const embedded = linear(stack([labels.cos(), labels.sin()], 1), weight('e.weight'), weight('e.bias'));
    const hidden = conv2d(x, weight('c1.weight'), weight('c1.bias'), { padding: 1 });
    const shifted = hidden.add(embedded.reshape([...embedded.shape, 1, 1]));
    return conv2d(silu(shifted), weight('c2.weight'), weight('c2.bias'), { padding: 1 });
  };
  const names = [...weights.keys()];
  const graph = compile((x0: Tensor, noise: Tensor, u: Tensor) => {
    const times = u.mul(1 - call.eps).add(call.eps);
    const value = scoreMatchingLoss(
      sde,
      scoreOfNetwork(sde, network),
      { x0, noise, times },
      {
        likelihoodWeighting: call.likelihood_weighting,
        reduceMean: call.reduce_mean,
      },
    );
    return { value, gradients: gradients(value, names.map(weight)) };
  });
  const answer = await graph(reference.input('x'), reference.input('z'), reference.input('u'));
  await graph.release();
  const outputs: Record<string, NdArray> = { 'out.loss': answer.value };
  for (const [i, name] of names.entries()) outputs[`grad.${name}`] = answer.gradients[i];
  return outputs;
};

export const adapters: Readonly<Record<string, Adapter>> = {
  VPSDE: process,
  subVPSDE: process,
  VESDE: process,
  EulerMaruyamaPredictor: update('predictor', 'euler_maruyama'),
  ReverseDiffusionPredictor: update('predictor', 'reverse_diffusion'),
  AncestralSamplingPredictor: update('predictor', 'ancestral_sampling'),
  LangevinCorrector: update('corrector', 'langevin'),
  AnnealedLangevinDynamics: update('corrector', 'ald'),
  get_pc_sampler: sampling,
  get_ode_sampler: flow,
  get_likelihood_fn: likelihood,
  get_sde_loss_fn: loss,
};
