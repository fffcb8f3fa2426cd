import type { Tensor } from '../tensor/index.js';

/** What a model of the flow is trained on: x_t, and the velocity there given both ends. */
export interface ConditionalFlow {
  /** Mean and deviation of x_t given its ends; `t` broadcasts with them. */
  mean(x0: Tensor, x1: Tensor, t: Tensor): Tensor;
  deviation(t: Tensor): Tensor;
  /** u_t(x_t | x0, x1). */
  velocity(x: Tensor, x0: Tensor, x1: Tensor, t: Tensor): Tensor;
  /** Width of the bridge, for {@link scoreWeight}. */
  readonly sigma: number;
}

const checked = (sigma: number): number => {
  if (!(sigma >= 0)) throw new RangeError(`conditional flow: sigma ${sigma}, expected 0 or more`);
  return sigma;
};
const between = (x0: Tensor, x1: Tensor, t: Tensor): Tensor => t.mul(x1).add(t.neg().add(1).mul(x0));

/**
 * Conditional flow matching from any source x0 (t = 0) to data x1 (t = 1) along straight lines of width sigma (Tong et
 * al. 2024, torchcfm). With sigma = 0 it is rectified flow; with pairs from {@link exactCoupling}, OT-CFM.
 */
export const straightFlow = (sigma = 0): ConditionalFlow => ({
  sigma: checked(sigma),
  mean: between,
  deviation: (t) => t.mul(0).add(sigma),
  velocity: (_, x0, x1) => x1.sub(x0),
});

/** Lipman et al. 2023: from standard noise, whose x0 does not enter; sigma is what is left of it at t = 1. */
export const targetFlow = (sigma = 0): ConditionalFlow => ({
  sigma: checked(sigma),
  mean: (_, x1, t) => t.mul(x1),
  deviation: (t) => t.mul(sigma - 1).add(1),
  velocity: (x, _, x1, t) => x1.sub(x.mul(1 - sigma)).div(t.mul(sigma - 1).add(1)),
});

/** The Schrödinger bridge between paired ends: a Brownian bridge of width sigma sqrt(t (1 - t)). */
export const schrodingerBridgeFlow = (sigma = 1): ConditionalFlow => ({
  sigma: checked(sigma),
  mean: between,
  deviation: (t) => t.mul(t.neg().add(1)).sqrt().mul(sigma),
  velocity(x, x0, x1, t) {
    const growth = t
      .mul(-2)
      .add(1)
      .div(t.mul(t.neg().add(1)).mul(2).add(1e-8));
    return growth.mul(x.sub(between(x0, x1, t))).add(x1.sub(x0));
  },
});

/** Albergo & Vanden-Eijnden 2023: along a quarter of a circle. */
export const trigonometricFlow = (sigma = 0): ConditionalFlow => {
  const parts = (t: Tensor) => [t.mul(Math.PI / 2).cos(), t.mul(Math.PI / 2).sin()] as const;
  return {
    sigma: checked(sigma),
    mean(x0, x1, t) {
      const [cos, sin] = parts(t);
      return cos.mul(x0).add(sin.mul(x1));
    },
    deviation: (t) => t.mul(0).add(sigma),
    velocity(_, x0, x1, t) {
      const [cos, sin] = parts(t);
      return cos
        .mul(x1)
        .sub(sin.mul(x0))
        .mul(Math.PI / 2);
    },
  };
};

/** x_t with unit normal `noise`, and the velocity a model should predict there. */
export function onFlow(flow: ConditionalFlow, x0: Tensor, x1: Tensor, t: Tensor, noise: Tensor) {
  const x = flow.mean(x0, x1, t).add(flow.deviation(t).mul(noise));
  return { x, velocity: flow.velocity(x, x0, x1, t) };
}

/** Weight of the score's loss beside the velocity's, where a model learns both (Tong et al. 2024b). */
export const scoreWeight = (flow: ConditionalFlow, t: Tensor): Tensor =>
  flow.deviation(t).mul(2 / (flow.sigma ** 2 + 1e-8));
