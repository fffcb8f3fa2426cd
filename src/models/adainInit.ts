import { type NdArray, ndarray, zeros } from '../array/index.js';
import type { Conv2d } from '../nn/index.js';
import type { AdaINNet } from './adainNet.js';

const mean = [0.485, 0.456, 0.406];
const std = [0.229, 0.224, 0.225];

/** Weights [O, I, 3, 3] scaled, then changed at the middle of their kernels. */
function reshaped(layer: Conv2d, scale: number, change: (weights: Float32Array, inputs: number) => void): void {
  const { shape } = layer.weight;
  const weights = Float32Array.from(layer.weight.value.data as Float32Array, (x) => scale * x);
  change(weights, shape[1]);
  layer.weight.set(ndarray(weights, shape));
  layer.bias!.set(zeros(layer.bias!.shape));
}

/** What a channel is handed on with where its size was doubled: near neighbours mixed, so that no blocks show. */
const blur = [1, 2, 1, 2, 4, 2, 1, 2, 1].map((x) => x / 16);

const middle = (output: number, input: number, inputs: number): number => (output * inputs + input) * 9 + 4;

/**
 * Makes a net begin near the identity: each convolution hands its channels on beside half of what was drawn (DiracNets,
 * Zagoruyko & Komodakis 2017), and the first six are the colours above and below their mean, all the way through. So
 * decoder(encoder(x)) is at once a coarse copy of x, smooth where it was upsampled, and learns in minutes what it
 * otherwise would in hours.
 * @throws RangeError when there are fewer than 6 channels at full size.
 */
export function beginNearIdentity({ encoder, decoder, config }: AdaINNet): void {
  if (config.channels[0] < 6)
    throw new RangeError(`beginNearIdentity: ${config.channels[0]} channels at full size, expected at least 6`);
  const [first, ...others] = encoder.layers;
  const { conv4_1, conv3_4, conv3_3, conv3_2, conv3_1, conv2_2, conv2_1, conv1_2, conv1_1: last } = decoder;
  reshaped(first, 0.5, (weights) => {
    for (let c = 0; c < 6; c++) {
      weights.fill(0, c * 27, (c + 1) * 27);
      weights[middle(c, c % 3, 3)] = c < 3 ? 1 : -1;
    }
  });
  for (const layer of [...others, conv4_1, conv3_4, conv3_3, conv3_2, conv3_1, conv2_2, conv2_1, conv1_2])
    reshaped(layer, 0.5, (weights, inputs) => {
      weights.fill(0, 0, 6 * inputs * 9);
      for (let c = 0; c < Math.min(inputs, layer.weight.shape[0]); c++) weights[middle(c, c, inputs)] += 1;
    });
  for (const layer of [conv3_4, conv2_2, conv1_2])
    reshaped(layer, 1, (weights, inputs) => {
      for (let c = 0; c < Math.min(inputs, layer.weight.shape[0]); c++) {
        const at = middle(c, c, inputs);
        weights[at] -= 1;
        for (const [i, x] of blur.entries()) weights[at - 4 + i] += x;
      }
    });
  reshaped(last, 0.2, (weights, inputs) => {
    for (let c = 0; c < 3; c++) {
      weights[middle(c, c, inputs)] = std[c];
      weights[middle(c, c + 3, inputs)] = -std[c];
    }
  });
  const bias: NdArray = ndarray(Float32Array.from(mean), [3]);
  last.bias!.set(bias);
}
