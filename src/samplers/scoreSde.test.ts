import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import {
  noiseSchedule,
  type PredictionType,
  perSample,
  type Sde,
  samplePrior,
  subVpSde,
  veSde,
  vpSde,
} from '../diffusion/index.js';
import { Generator } from '../random/index.js';
import { compile, constant, type Tensor } from '../tensor/index.js';
import {
  applyStep,
  bitsPerDimension,
  coefficientsOf,
  conditioning,
  hutchinsonProbe,
  type Linear,
  logLikelihood,
  predictorCorrector,
  probabilityFlow,
  type Sampler,
  samplerFromConfig,
  scaleInput,
  scoreDivergence,
  scoreSdeVe,
} from './index.js';

/** Gaussians in the plane: weight, mean, standard deviation. */
const parts = [
  { weight: 0.5, mean: [1.2, 0.4], std: 0.3 },
  { weight: 0.3, mean: [-0.8, 1], std: 0.15 },
  { weight: 0.2, mean: [-0.5, -1.1], std: 0.4 },
];

interface Level {
  readonly alpha: number;
  readonly sigma: number;
}

/** Log density of alpha x_0 + sigma noise, and the responsibilities of the parts. */
function mixtureAt(point: ArrayLike<number>, { alpha, sigma }: Level) {
  const logs = parts.map(({ weight, mean, std }) => {
    const variance = (alpha * std) ** 2 + sigma ** 2;
    const squares = mean.reduce((sum, m, i) => sum + (point[i] - alpha * m) ** 2, 0);
    return Math.log(weight) - Math.log(2 * Math.PI * variance) - squares / (2 * variance);
  });
  const largest = Math.max(...logs);
  const total = largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0));
  return { logProb: total, shares: logs.map((log) => Math.exp(log - total)) };
}

function mixtureScore(point: ArrayLike<number>, level: Level): number[] {
  const { shares } = mixtureAt(point, level);
  return [0, 1].map((i) =>
    parts.reduce((sum, { mean, std }, k) => {
      const variance = (level.alpha * std) ** 2 + level.sigma ** 2;
      return sum - (shares[k] * (point[i] - level.alpha * mean[i])) / variance;
    }, 0),
  );
}

/** The same for many points as a graph: x [N, 2] at levels [N]. */
function scoreGraph(x: Tensor, { alpha, sigma }: { alpha: Tensor; sigma: Tensor }): Tensor {
  const [a, s] = [perSample(alpha, x), perSample(sigma, x)];
  const terms = parts.map(({ weight, mean, std }) => {
    const variance = a.mul(std).square().add(s.square());
    const away = x.sub(a.mul(constant(mean)));
    const log = away.square().sum(1, true).div(variance.mul(-2)).sub(variance.log()).add(Math.log(weight));
    return { log, pull: away.div(variance).neg() };
  });
  const largest = terms.map(({ log }) => log).reduce((p, q) => p.maximum(q));
  const weights = terms.map(({ log }) => log.sub(largest).exp());
  const total = weights.reduce((p, q) => p.add(q));
  return terms
    .map(({ pull }, k) => pull.mul(weights[k]))
    .reduce((p, q) => p.add(q))
    .div(total);
}

const sdes: readonly Sde[] = [vpSde(), subVpSde(), veSde({ sigmaMax: 20 })];
const names = sdes.map((sde) => [sde.name, sde] as const);
const filled = (count: number, value: number): NdArray<'float32'> => ndarray(new Float32Array(count).fill(value));

/** First moments of the mixture, second ones, and the parts' weights by nearest mean. */
function moments(data: ArrayLike<number>): number[] {
  const points = Array.from({ length: data.length / 2 }, (_, n) => [data[2 * n], data[2 * n + 1]]);
  const average = (of: (point: number[]) => number) => points.reduce((sum, p) => sum + of(p), 0) / points.length;
  const nearest = (p: number[]) =>
    parts.map(({ mean }, k) => [Math.hypot(p[0] - mean[0], p[1] - mean[1]), k]).sort(([a], [b]) => a - b)[0][1];
  return [
    average(([x]) => x),
    average(([, y]) => y),
    average(([x]) => x * x),
    average(([, y]) => y * y),
    average(([x, y]) => x * y),
    ...parts.map((_, k) => average((p) => Number(nearest(p) === k))),
  ];
}

const count = 3000;
const truth = (): number[] => {
  const rng = new Generator(11);
  const z = rng.randn([20 * count, 2]).data;
  const u = rng.rand([20 * count]).data;
  const which = (share: number) =>
    parts.findIndex((_, k) => share < parts.slice(0, k + 1).reduce((s, p) => s + p.weight, 0));
  return moments(
    Array.from(z, (value, i) => {
      const { mean, std } = parts[Math.max(0, which(u[i >> 1]))];
      return mean[i % 2] + std * value;
    }),
  );
};
const expected = truth();
/** Three standard errors, and the discretisation's own. */
const expectMoments = (data: ArrayLike<number>, tolerance = 0.06) =>
  moments(data).forEach((value, i) => {
    expect(Math.abs(value - expected[i]), `moment ${i}: ${value} for ${expected[i]}`).toBeLessThan(tolerance);
  });

describe.each(names)('%s', (_, sde) => {
  it('has the same formulas as graphs', async () => {
    const times = [1e-3, 0.2, 0.7, 1];
    const graph = compile((t: Tensor) => ({ ...sde.levels(t), g2: sde.squaredDiffusion(t) }));
    const { alpha, sigma, g2 } = await graph(ndarray(times));
    for (const [i, t] of times.entries()) {
      expect(Number(alpha.data[i])).toBeCloseTo(sde.marginal(t).alpha, 5);
      expect(Number(sigma.data[i]) / sde.marginal(t).sigma).toBeCloseTo(1, 3);
      expect(Number(g2.data[i]) / sde.diffusion(t) ** 2).toBeCloseTo(1, 3);
    }
  });

  it('has the marginals that its drift and diffusion lead to', () => {
    const h = 1e-5;
    for (const t of [0.1, 0.5, 0.9]) {
      const slope = (of: (level: Level) => number) => (of(sde.marginal(t + h)) - of(sde.marginal(t - h))) / (2 * h);
      const { alpha, sigma } = sde.marginal(t);
      expect(slope((level) => level.alpha)).toBeCloseTo(sde.drift(t) * alpha, 5);
      const variance = 2 * sde.drift(t) * sigma ** 2 + sde.diffusion(t) ** 2;
      expect(slope((level) => level.sigma ** 2) / variance).toBeCloseTo(1, 5);
    }
  });

  it('samples a Gaussian mixture by predictor and corrector', async () => {
    const config = { vp: {}, subvp: {}, ve: { sigmaMax: 20 } }[sde.name];
    const sampler = predictorCorrector({ ...config, sde: sde.name, predictionType: 'score', snr: 0.1 });
    const plan = sampler.plan({ steps: 150 });
    const step = compile((coefficients: Tensor, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) => {
      const prediction = scoreGraph(scaleInput(plan.layout, coefficients, x), { alpha, sigma });
      return applyStep(plan.layout, { coefficients, state: [x], prediction, noise }).state[0];
    });
    const rng = new Generator(5);
    let x: NdArray = samplePrior(sde, [count, 2], rng);
    for (const [k, { alpha, sigma }] of plan.calls.entries())
      x = await step(coefficientsOf(plan, k), x, rng.randn([count, 2]), filled(count, alpha), filled(count, sigma));
    await step.release();
    expectMoments(x.data as Float32Array);
  });

  it('samples it by the probability-flow ODE, and finds the way back', async () => {
    const score = compile((x: Tensor, times: Tensor) => scoreGraph(x, sde.levels(times)));
    const ask = (x: NdArray, t: number) => score(x, filled(x.shape[0], t));
    const noise = samplePrior(sde, [count, 2], new Generator(6));
    const { x, evaluations } = await probabilityFlow(sde, ask, noise);
    expectMoments(x.data);
    expect(evaluations).toBeLessThan(250);
    const back = await probabilityFlow(sde, ask, x, { from: 1e-3, to: 1 });
    const errors = back.x.data.map((value, i) => Math.abs(value - noise.data[i]) / sde.priorSigma);
    expect(errors.sort()[Math.floor(0.99 * errors.length)]).toBeLessThan(5e-3);
    await score.release();
  });

  it('knows the likelihood', async () => {
    const points = [1.2, 0.4, -0.8, 1.1, 0.1, 0.2, -1, -1.5, 2, -1];
    const data = ndarray(Float32Array.from(points), [5, 2]);
    const graph = compile((x: Tensor, times: Tensor, probe: Tensor) =>
      scoreDivergence((y, t) => scoreGraph(y, sde.levels(t)), x, times, probe),
    );
    // In the plane two probes of signs give the divergence exactly.
    const probe = (sign: number) =>
      ndarray(
        Float32Array.from(points, (_, i) => (i % 2 ? sign : 1)),
        [5, 2],
      );
    const exact = async (x: NdArray, t: number) => {
      const answers = [await graph(x, filled(5, t), probe(1)), await graph(x, filled(5, t), probe(-1))];
      const divergence = Float32Array.from({ length: 5 }, (_, n) =>
        answers.reduce((s, a) => s + Number(a.divergence.data[n]) / 2, 0),
      );
      return { score: answers[0].score, divergence: ndarray(divergence) };
    };
    const { logProb } = await logLikelihood(sde, exact, data, probe(1));
    for (let n = 0; n < 5; n++) {
      const { logProb: known } = mixtureAt(points.slice(2 * n, 2 * n + 2), { alpha: 1, sigma: 0 });
      // The prior is not quite the distribution at t = 1.
      expect(Math.abs(logProb[n] - known)).toBeLessThan(sde.name === 've' ? 0.05 : 0.01);
    }
    await graph.release();
  });

  it.each(['epsilon', 'x0', 'v', 'flow'] as const)('asks a denoiser that predicts %s for its score', (type) => {
    const { alphasCumprod } = noiseSchedule();
    const config = { ...predictorCorrector().config, predictionType: type };
    const ask = conditioning(sde, config);
    for (const t of [0.05, 0.3, 0.6]) {
      const x = [0.9, -0.4].map((value) => value * Math.hypot(sde.marginal(t).alpha, sde.marginal(t).sigma));
      const { timestep, inputScale, score, x0 } = ask(t);
      const answer = denoiser(
        type,
        x.map((value) => value * inputScale),
        timestep,
        alphasCumprod,
      );
      const wanted = mixtureScore(x, sde.marginal(t));
      const evaluate = (form: Linear, i: number) => (form.x ?? 0) * x[i] + (form.prediction ?? 0) * answer[i];
      for (const i of [0, 1]) {
        expect(evaluate(score, i)).toBeCloseTo(wanted[i], 2);
        const { alpha, sigma } = sde.marginal(t);
        expect(evaluate(x0, i)).toBeCloseTo((x[i] + sigma ** 2 * wanted[i]) / alpha, 2);
      }
    }
  });
});

/** The best possible denoiser of the mixture, trained on the schedule (or on rectified flow), at a fractional timestep. */
function denoiser(type: PredictionType, x: number[], timestep: number, alphasCumprod: Float32Array): number[] {
  const log = (i: number) => 0.5 * Math.log((1 - alphasCumprod[i]) / alphasCumprod[i]);
  const below = Math.floor(timestep);
  const ratio = Math.exp(log(below) + (timestep - below) * (log(Math.min(below + 1, 999)) - log(below)));
  const alpha = type === 'flow' ? 1 - timestep / 1000 : 1 / Math.hypot(1, ratio);
  const sigma = type === 'flow' ? timestep / 1000 : ratio * alpha;
  return mixtureScore(x, { alpha, sigma }).map((score, i) => {
    const epsilon = -sigma * score;
    const x0 = (x[i] - sigma * epsilon) / alpha;
    return { epsilon, x0, v: alpha * epsilon - sigma * x0, flow: epsilon - x0, score }[type];
  });
}

describe('samplers of score SDEs', () => {
  it('write and read their config', () => {
    for (const sampler of [predictorCorrector({ sde: 've', snr: 0.2 }), scoreSdeVe({ correctSteps: 2 })]) {
      const again = samplerFromConfig(JSON.parse(JSON.stringify(sampler.toConfig())));
      expect(again.config).toEqual(sampler.config);
      expect(again.plan({ steps: 30 })).toEqual((sampler as Sampler).plan({ steps: 30 }));
    }
  });

  it('refuse what cannot be', () => {
    expect(() => predictorCorrector({ predictor: 'none', corrector: 'none' })).toThrow(
      'expected a predictor or a corrector',
    );
    expect(() => predictorCorrector({ predictor: 'ancestral_sampling', sde: 'subvp' })).toThrow(
      'use reverse_diffusion',
    );
    expect(() => predictorCorrector().plan({ steps: 10 })).toThrow('expected at least 21 steps for betaMax 20, got 10');
    expect(() => veSde({ sigmaMin: 2, sigmaMax: 1 })).toThrow('got 2 and 1');
    expect(() => vpSde({ betaMin: 0 })).toThrow('got 0 and 20');
  });

  it('count bits', () => {
    expect(bitsPerDimension(-10 * Math.log(2), 10)).toBeCloseTo(8, 10);
  });

  it('probe with signs, or normal numbers', () => {
    const signs = hutchinsonProbe([4, 50], new Generator(0));
    expect(new Set(signs.data)).toEqual(new Set([-1, 1]));
    expect(new Set(hutchinsonProbe([4, 50], new Generator(0), 'gaussian').data).size).toBeGreaterThan(100);
  });
});
