import { noiseSchedule } from '../diffusion/index.js';
import type { Denoiser } from '../models/index.js';
import { constant, gather, type Tensor } from '../tensor/index.js';
import { TranslatedDenoiser } from './translatedDenoiser.js';

/**
 * A model of rectified flow as one of a variance preserving process, so that every sampler can run it: at the same ratio
 * of noise to signal, s = sqrt((1 - alphaBar) / alphaBar), the two processes differ in scale only. The flow's time there
 * is s / (1 + s) and its x is x sqrt(1 + s^2) / (1 + s); out of its prediction, noise - x0, come both noise and x0
 * (Karras et al. 2022, arXiv:2206.00364: the scale is a change of variables). Predicts v; timesteps between the whole ones are read as samplers in sigma
 * space place them, in the logarithm of s. The noise schedule is DDPM's linear one: the sampler has to have
 * the same {@link VariancePreservingFlow.betas}, which not all have by default.
 */
export class VariancePreservingFlow extends TranslatedDenoiser {
  static readonly betas = { betaStart: 1e-4, betaEnd: 0.02 } as const;

  /** @param model predicts flow, without a learned variance. @throws RangeError when it has one. */
  constructor(model: Denoiser) {
    super(model);
    if (model.outChannels !== model.inChannels)
      throw new RangeError(
        `VariancePreservingFlow: the model gives ${model.outChannels} channels for ${model.inChannels}, expected as many`,
      );
  }

  /** As {@link Denoiser.forward}; timesteps in [0, 999]. */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const { alphasCumprod } = noiseSchedule(VariancePreservingFlow.betas);
    const last = alphasCumprod.length - 1;
    const table = constant(Array.from(alphasCumprod, (alphaBar) => 0.5 * Math.log((1 - alphaBar) / alphaBar)));
    const below = timestep.floor();
    const at = (index: Tensor) => gather(table, index.clamp(0, last).cast('int64'), 0);
    const share = timestep.sub(below);
    const ratio = at(below)
      .mul(share.neg().add(1))
      .add(at(below.add(1)).mul(share))
      .exp();

    const time = ratio.div(ratio.add(1));
    const whole = ratio.square().add(1).sqrt();
    const each = (number: Tensor) => number.reshape([-1, 1, 1, 1]);
    const z = x.mul(each(whole.div(ratio.add(1))));
    const flow = this.model.forward(z, time.mul(last + 1), classLabels);
    const x0 = z.sub(flow.mul(each(time)));
    const noise = x0.add(flow);
    return noise.sub(x0.mul(each(ratio))).div(each(whole));
  }
}
