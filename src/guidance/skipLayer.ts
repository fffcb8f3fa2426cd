import { type Module, type Perturbation, skippedScores } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { rand, type Tensor } from '../tensor/index.js';
import { contrast } from './contrast.js';
import type { Branch, GuidanceOptions, Guider, Schedule } from './guider.js';
import { chosenLayers, type LayerKind, type Layers, perturbable } from './layers.js';

export interface SkipOptions {
  /** Which layers; default: the middle one. */
  readonly layers?: Layers;
  /**
   * What is skipped, that is, returns its input: the whole transformer block, its self-attention or its feed-forward
   * layer (residual and gate stay); 'scores' has attention return its values. Default: the block, where there are any.
   */
  readonly skip?: LayerKind | 'scores';
  /** Instead of skipping, drop this share of the layer's outputs, in (0, 1). */
  readonly dropout?: number;
  /** Of the dropout; default 0. */
  readonly seed?: number;
}

/**
 * Skip-layer guidance (Stable Diffusion 3.5): ε(x, y) + s (ε(x, y) - ε̂(x, y)), where ε̂ has some layers skipped.
 * 0 is off; convention 'standard' makes that 1.
 * @throws RangeError for options that make no sense; for layers that a model lacks when it is used.
 */
export const skipLayer = (scale: Schedule, options: GuidanceOptions & SkipOptions = {}): Guider =>
  contrast(scale, options, { other: skipBranch(options), convention: 'paper' });

/** The prediction with some layers skipped. @throws RangeError for a dropout outside (0, 1), or of scores. */
export function skipBranch(options: SkipOptions, condition = 'positive'): Branch {
  const { layers, skip, dropout = 1, seed = 0 } = options;
  if (!(dropout > 0 && dropout <= 1)) throw new RangeError(`guidance: dropout must lie in (0, 1), got ${dropout}`);
  if (dropout < 1 && skip === 'scores') throw new RangeError("guidance: skip 'scores' takes no dropout");
  return {
    name: `skip ${skip ?? ''} ${layers ?? ''} ${dropout} ${seed} of ${condition}`,
    condition,
    perturb(model) {
      const kind = skip === 'scores' ? 'attention' : (skip ?? defaultKind(model));
      const how: Perturbation =
        skip === 'scores' ? { attend: skippedScores } : dropout < 1 ? dropped(dropout, seed) : { skip: true };
      const middle = Math.floor(perturbable(model, kind).length / 2);
      return new Map(chosenLayers(model, kind, layers ?? middle).map((layer) => [layer, how]));
    },
  };
}

const defaultKind = (model: Module): LayerKind => (perturbable(model, 'block').length > 0 ? 'block' : 'attention');

function dropped(share: number, seed: number): Perturbation {
  const rng = new Generator(seed);
  const output = (y: Tensor) => y.mul(rand(y.shape, rng).greaterEqual(share).cast('float32')).mul(1 / (1 - share));
  return { output };
}
