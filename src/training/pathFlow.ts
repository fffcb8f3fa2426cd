import { ndarray } from '../array/index.js';
import {
  denoisingLoss,
  drawNoiseLevels,
  type FlowPath,
  onFlowPath,
  perSample,
  type TimestepDensity,
  type TimestepDensityOptions,
} from '../diffusion/index.js';
import { draw, randn } from '../tensor/index.js';
import type { Objective } from './objective.js';

export interface PathFlowOptions extends FlowPath, TimestepDensityOptions {
  /** How often each time is trained; default logit_normal. */
  readonly density?: TimestepDensity;
}

/** Some paths' velocities have no end at t = 0 or 1. */
const EDGE = 1e-3;

/**
 * Flow matching along any path (Lipman et al. 2023, Tong et al. 2024). The model is told 1000 (1 - t), and predicts
 * minus the velocity: on `cond-ot` both are what {@link rectifiedFlow} has. Sample it as a `FlowOnPath`.
 */
export function pathFlow({
  path,
  pathPower,
  bridgeSigma,
  density = 'logit_normal',
  ...shape
}: PathFlowOptions): Objective {
  const flow = { path, pathPower, bridgeSigma };
  return {
    predictionType: 'flow',
    noisy(data, rng, _labels, noise = randn(data.shape, rng)) {
      const n = data.shape[0];
      const times = () => drawNoiseLevels(density, n, rng, shape).map((t) => Math.min(1 - EDGE, Math.max(EDGE, t)));
      const t = draw([n], 'float32', () => ndarray(times(), [n]));
      const { x, velocity } = onFlowPath(flow, noise, data, perSample(t, data), () => randn(data.shape, rng));
      return { x, timestep: t.neg().add(1).mul(1000), target: velocity.neg() };
    },
    loss: (prediction, { target, weight }) => denoisingLoss(prediction, target, weight),
  };
}
