import { type AffinePath, affinePathOf, convertOnPath, type FlowPath } from '../diffusion/index.js';
import type { Denoiser } from '../models/index.js';
import type { Tensor } from '../tensor/index.js';
import { TranslatedDenoiser } from './translatedDenoiser.js';

/** Ratios of signal to noise beyond these count as these: paths may begin or end there, or have no velocity. */
const [LEAST, MOST] = [Math.exp(-5), 100];

/**
 * A model of the velocity along another path (`pathFlow`) as one of rectified flow, so that every sampler can run it: at
 * the same ratio of signal to noise two paths differ in scale only, which is a change of variables of their ODEs (Karras
 * et al. 2022; `ScheduleTransformedModel` of facebookresearch/flow_matching). Predicts noise - x0 at timestep 1000 sigma.
 */
export class FlowOnPath extends TranslatedDenoiser {
  static readonly className = 'FlowOnPath';

  constructor(
    model: Denoiser,
    readonly path: AffinePath,
  ) {
    super(model);
  }

  /** As {@link Denoiser.forward}; timesteps in [0, 1000]. */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const ratio = timestep.neg().add(1000).div(timestep).clamp(LEAST, MOST);
    const t = this.path.snrInverse(ratio);
    const { alpha, sigma } = this.path.at(t);
    const each = (numbers: Tensor) => numbers.reshape([-1, 1, 1, 1]);
    const z = x.mul(each(alpha.add(sigma)));
    const velocity = this.model.forward(z, t.neg().add(1).mul(1000), classLabels).neg();
    const [data, noise] = (['target', 'epsilon'] as const).map((to) =>
      convertOnPath(this.path, ['velocity', to], velocity, z, each(t)),
    );
    return noise.sub(data);
  }
}

/** A model trained on any path as one of rectified flow. */
export const asRectifiedFlow = (model: Denoiser, flow: FlowPath): Denoiser =>
  flow.path === 'cond-ot' ? model : new FlowOnPath(model, affinePathOf(flow));
