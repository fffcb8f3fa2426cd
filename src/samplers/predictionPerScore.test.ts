import { expect, test } from 'vitest';
import {
  ddim,
  ddpm,
  dpmSolverMultistep,
  edmEuler,
  euler,
  flowMatchEuler,
  predictionPerScore,
  type SamplerPlan,
} from './index.js';

/** Data of two equally likely classes, N(1, 0.25) and N(-1, 0.25): x = alpha x0 + sigma noise, all in closed form. */
function truth(x: number, alpha: number, sigma: number) {
  const variance = (alpha / 2) ** 2 + sigma ** 2;
  const x0Of = (mean: number) => mean + ((alpha / 4) * (x - alpha * mean)) / variance;
  // p(y = 1 | x) is the sigmoid of this slope times x.
  const slope = (2 * alpha) / variance;
  const share = 1 / (1 + Math.exp(-slope * x));
  return {
    conditional: x0Of(1),
    unconditional: share * x0Of(1) + (1 - share) * x0Of(-1),
    gradient: slope * (1 - share),
  };
}

/** By Bayes' rule the unconditional prediction and the classifier's gradient make the conditional prediction. */
function check(plan: SamplerPlan): void {
  for (const [k, { alpha, sigma, inputScale, x0 }] of plan.calls.entries())
    for (const x of alpha > 0 ? [-1.3, 0, 0.4] : []) {
      const input = x * Math.hypot(alpha, sigma);
      const { conditional, unconditional, gradient } = truth(input, alpha, sigma);
      const predictionOf = (clean: number) => (clean - x0.x * input) / x0.prediction;
      const seen = gradient / inputScale; // with respect to what the denoiser sees
      const guided = predictionOf(unconditional) + predictionPerScore(plan, k) * seen;
      expect(guided / predictionOf(conditional)).toBeCloseTo(1, 5);
    }
}

test('a gradient of log p(y|x) turns unconditional predictions into conditional ones, whatever is predicted', () => {
  const steps = 7;
  for (const predictionType of ['epsilon', 'v_prediction'] as const) {
    check(ddim({ predictionType }).plan({ steps }));
    check(ddpm({ predictionType }).plan({ steps }));
    check(euler({ predictionType }).plan({ steps }));
    check(edmEuler({ predictionType }).plan({ steps }));
    check(dpmSolverMultistep({ predictionType }).plan({ steps }));
  }
  check(flowMatchEuler().plan({ steps }));
});

test('where x is nothing but noise there is nothing to guide', () => {
  const plan = ddim({ predictionType: 'v_prediction', rescaleBetasZeroSnr: true, timestepSpacing: 'trailing' }).plan({
    steps: 4,
  });
  expect(predictionPerScore(plan, 0)).toBe(0);
});
