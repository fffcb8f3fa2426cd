import { checkpoint, gelu, mish, quickGelu, relu, silu, type Tensor } from '../tensor/index.js';
import { isTraining, Module } from './module.js';

const activations = {
  silu,
  swish: silu,
  mish,
  relu,
  gelu: (x: Tensor) => gelu(x, 'erf'),
  'gelu-approximate': (x: Tensor) => gelu(x, 'tanh'),
  gelu_new: (x: Tensor) => gelu(x, 'tanh'),
  gelu_pytorch_tanh: (x: Tensor) => gelu(x, 'tanh'),
  quick_gelu: quickGelu,
  sigmoid: (x: Tensor) => x.sigmoid(),
  tanh: (x: Tensor) => x.tanh(),
} as const;
export type ActivationName = keyof typeof activations;

/** @throws RangeError for a name outside {@link ActivationName}: configurations are read from files. */
export function activationName(name: string): ActivationName {
  const known = name.toLowerCase();
  if (!Object.hasOwn(activations, known))
    throw new RangeError(`activation '${name}' is unknown, expected one of ${Object.keys(activations).join(', ')}`);
  return known as ActivationName;
}

/**
 * The activation of that name in diffusers or transformers. In training it is computed again in the backward
 * pass instead of being kept: it costs less than the memory it would hold.
 */
export function activate(name: ActivationName, x: Tensor): Tensor {
  return recomputed(() => activation(name)(x));
}

/** The same, kept for the backward pass: where a linear layer follows, which keeps it in any case. */
export const activation = (name: ActivationName): ((x: Tensor) => Tensor) => activations[activationName(name)];

/** In training, discards what `build` makes and makes it again for the backward pass: for cheap elementwise chains. */
export const recomputed = (build: () => Tensor): Tensor =>
  isTraining() ? checkpoint(build, { discardResults: true }) : build();

/** An activation that has a place in a list of layers. */
export class Activation extends Module {
  constructor(readonly activation: ActivationName) {
    super();
  }

  forward(x: Tensor): Tensor {
    return activate(this.activation, x);
  }
}
