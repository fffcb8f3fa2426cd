import { Module } from '../../nn/index.js';
import { constant, type Tensor } from '../../tensor/index.js';

/** A latent and log |det ∂z/∂x|, [N]. */
export interface ToLatent {
  readonly z: Tensor;
  readonly logDet: Tensor;
}

/** A sample and log |det ∂x/∂z|, [N]. */
export interface FromLatent {
  readonly x: Tensor;
  readonly logDet: Tensor;
}

/**
 * An invertible map between data x [N, ...] and latents z of as many numbers, with the volume it adds.
 * `forward` goes from data to latents (what a likelihood needs), `inverse` back (what sampling needs).
 */
export interface Flow extends Module {
  forward(x: Tensor): ToLatent;
  inverse(z: Tensor): FromLatent;
}

/** Of each sample: [N, ...] to [N]. */
export const sumPerSample = (x: Tensor): Tensor =>
  x.rank === 1 ? x : x.sum(Array.from({ length: x.rank - 1 }, (_, i) => i + 1));

/** No change of volume, [N]. */
export const noLogDet = (x: Tensor): Tensor => constant(0, x.dtype).expand([x.shape[0]]);

/** One number for all samples, as [N]. */
export const sameLogDet = (logDet: Tensor, x: Tensor): Tensor => logDet.reshape([1]).expand([x.shape[0]]);

/** Flows one after the other; the list is in the order from data to latents. */
export class FlowSequence<F extends Flow = Flow> extends Module implements Flow {
  constructor(readonly flows: readonly F[]) {
    super();
  }

  forward(x: Tensor): ToLatent {
    let [z, logDet] = [x, noLogDet(x)];
    for (const flow of this.flows) {
      const step = flow.forward(z);
      [z, logDet] = [step.z, logDet.add(step.logDet)];
    }
    return { z, logDet };
  }

  inverse(z: Tensor): FromLatent {
    let [x, logDet] = [z, noLogDet(z)];
    for (const flow of this.flows.toReversed()) {
      const step = flow.inverse(x);
      [x, logDet] = [step.x, logDet.add(step.logDet)];
    }
    return { x, logDet };
  }
}

/** A flow the other way round: the inverse autoregressive flow (Kingma et al. 2016) is `new Inverted(maf)`. */
export class Inverted<F extends Flow = Flow> extends Module implements Flow {
  constructor(readonly flow: F) {
    super();
  }

  forward(x: Tensor): ToLatent {
    const { x: z, logDet } = this.flow.inverse(x);
    return { z, logDet };
  }

  inverse(z: Tensor): FromLatent {
    const { z: x, logDet } = this.flow.forward(z);
    return { x, logDet };
  }
}

/** @throws RangeError for another rank, or (where given) another size of axis 1. */
export function checkInput(name: string, x: Tensor, rank: number, channels?: number): void {
  if (x.rank !== rank || (channels !== undefined && x.shape[1] !== channels))
    throw new RangeError(
      `${name}: input [${x.shape}], expected [N, ${[channels ?? 'C', 'H', 'W'].slice(0, rank - 1).join(', ')}]`,
    );
}

/** @throws RangeError when a coupling cannot split so many. */
export function checkEven(name: string, what: string, count: number): void {
  if (!(Number.isInteger(count) && count > 0 && count % 2 === 0))
    throw new RangeError(`${name}: ${count} ${what}, expected an even number, as a coupling takes half of them`);
}
