import type { NdArray } from '../array/index.js';

const encoderLayers = 'conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1'.split(' ');
const named = (
  prefix: string,
  places: readonly (number | string)[],
  layers: readonly string[],
): ReadonlyMap<string, string> =>
  new Map(
    places.flatMap((place, i) =>
      ['weight', 'bias'].map((kind): [string, string] => [`${prefix}${place}.${kind}`, `${layers[i]}.${kind}`]),
    ),
  );

const torchvision = named('features.', [0, 2, 5, 7, 10, 12, 14, 16, 19], encoderLayers);
const normalised = named('', [0, 2, 5, 9, 12, 16, 19, 22, 25, 28], ['normalize', ...encoderLayers]);
const own = named('encoder.', ['normalize', ...encoderLayers], ['normalize', ...encoderLayers]);
const decoder = named('', [1, 5, 8, 11, 14, 18, 21, 25, 28], encoderLayers.toReversed());

function renamed(
  what: string,
  state: ReadonlyMap<string, NdArray>,
  names: ReadonlyMap<string, string>,
): Map<string, NdArray> {
  return new Map(
    [...names].map(([theirs, ours]) => {
      const array = state.get(theirs);
      if (!array) throw new Error(`${what}: ${theirs} (${ours}) is missing`);
      return [ours, array];
    }),
  );
}

/**
 * Weights of a VGG-19 for {@link StyleEncoder}; its later layers are left out.
 * @param state of torchvision's vgg19 (`features.0.weight`, and RGB by ImageNet's statistics), of pytorch-AdaIN's
 * vgg_normalised (`0.weight`, whose first layer is 1x1), or of our VggClassifier (`encoder.conv1_1.weight`).
 * @param drawn what torchvision's lacks: `normalize`, as drawn.
 * @throws Error that names what is missing.
 */
export function encoderState(
  state: ReadonlyMap<string, NdArray>,
  drawn: ReadonlyMap<string, NdArray>,
): Map<string, NdArray> {
  if (state.has('encoder.conv1_1.weight')) return renamed('VggClassifier', state, own);
  if (!state.has('features.0.weight')) return renamed('VGG-19', state, normalised);
  const normalize = [...drawn].filter(([name]) => name.startsWith('normalize.'));
  return new Map([...normalize, ...renamed('VGG-19', state, torchvision)]);
}

/** Weights of pytorch-AdaIN's decoder (`1.weight` to `28.weight`) for {@link StyleDecoder}. @throws as {@link encoderState}. */
export const decoderState = (state: ReadonlyMap<string, NdArray>): Map<string, NdArray> =>
  renamed('AdaIN decoder', state, decoder);
