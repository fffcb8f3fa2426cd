import { identityAttention, type Perturbation } from '../nn/index.js';
import { contrast } from './contrast.js';
import type { Branch, GuidanceOptions, Guider, Schedule } from './guider.js';
import { chosenLayers, type LayerKind, type Layers } from './layers.js';

export interface PerturbedOptions extends GuidanceOptions {
  /** Which layers to perturb; default: attention of a U-Net's middle block, else the last third of the blocks. */
  readonly layers?: Layers;
}

/**
 * Perturbed-attention guidance (Ahn et al. 2024): ε(x, y) + s (ε(x, y) - ε̂(x, y)), where ε̂ has identity in place of
 * self-attention in some layers. It needs no unconditional prediction: with a null class as the condition it guides
 * unconditional generation. 0 is off; convention 'standard' makes that 1.
 * @throws RangeError for an interval or rescale that makes no sense; for layers that a model lacks when it is used.
 */
export function pag(scale: Schedule, options: PerturbedOptions = {}): Guider {
  const other = perturbedBranch('identity attention', 'attention', options.layers, () => ({
    attend: identityAttention,
  }));
  return contrast(scale, options, { other, convention: 'paper' });
}

/** The conditional prediction with some layers perturbed. */
export function perturbedBranch(
  what: string,
  kind: LayerKind,
  layers: Layers | undefined,
  perturbation: (size: readonly [number, number]) => Perturbation,
  condition = 'positive',
): Branch {
  return {
    name: `${what} in ${layers ?? 'default'} ${kind} (${condition})`,
    condition,
    perturb(model, size) {
      const how = perturbation(size);
      return new Map(chosenLayers(model, kind, layers).map((layer) => [layer, how]));
    },
  };
}
