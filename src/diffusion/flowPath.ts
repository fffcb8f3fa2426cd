import type { Tensor } from '../tensor/index.js';
import {
  type AffinePath,
  bridgePath,
  condOtPath,
  cosinePath,
  linearVpPath,
  onPath,
  polynomialPath,
  vpPath,
} from './affinePath.js';
import { onFlow, schrodingerBridgeFlow } from './conditionalFlow.js';

/** Ways from noise to data that a flow can be trained on; see {@link affinePathOf}. */
export const flowPaths = ['cond-ot', 'vp', 'linear-vp', 'cosine', 'polynomial', 'schrodinger-bridge'] as const;

/** A way from noise to data, as settings name it. */
export interface FlowPath {
  readonly path: (typeof flowPaths)[number];
  /** n of polynomial: alpha = t^n; default 2. */
  readonly pathPower?: number;
  /** Width of schrodinger-bridge; default 0.1. */
  readonly bridgeSigma?: number;
}

/** How much data and noise is in x_t. @throws RangeError for a power or width out of range. */
export function affinePathOf({ path, pathPower = 2, bridgeSigma = 0.1 }: FlowPath): AffinePath {
  switch (path) {
    case 'cond-ot':
      return condOtPath();
    case 'vp':
      return vpPath();
    case 'linear-vp':
      return linearVpPath();
    case 'cosine':
      return cosinePath();
    case 'polynomial':
      return polynomialPath(pathPower);
    case 'schrodinger-bridge':
      return bridgePath(bridgeSigma);
  }
}

/**
 * x_t [N, ...] between noise and data at t [N, 1, ...], and the velocity that a model regresses on.
 * @param shake unit normal, for the bridge's own randomness; the other paths have none.
 */
export function onFlowPath(flow: FlowPath, noise: Tensor, data: Tensor, t: Tensor, shake: () => Tensor) {
  if (flow.path !== 'schrodinger-bridge') return onPath(affinePathOf(flow), noise, data, t);
  return onFlow(schrodingerBridgeFlow(flow.bridgeSigma ?? 0.1), noise, data, t, shake());
}
