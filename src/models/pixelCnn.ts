import { ndarray } from '../array/index.js';
import { Conv2d, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { constant, conv2d, relu, split, type Tensor } from '../tensor/index.js';
import { type AutoregressiveModel, checkImages } from './autoregressive.js';

type ImageShape = readonly [number, number, number];

/** Pixel by pixel: the channels of one do not see each other, and all later pixels see them all. */
const pixelOrder = ([c, h, w]: ImageShape): Int32Array =>
  Int32Array.from({ length: c * h * w }, (_, i) => (i % c) * h * w + Math.floor(i / c));

/** A convolution that sees only what comes before a pixel in raster order, and with `kind` B the pixel itself. */
class MaskedConv2d extends Conv2d {
  constructor(
    readonly kind: 'A' | 'B',
    inChannels: number,
    outChannels: number,
    kernel: number,
    rng: Generator,
  ) {
    super(inChannels, outChannels, kernel, { padding: (kernel - 1) / 2 }, rng);
  }

  override forward(x: Tensor): Tensor {
    const [, , height, width] = this.weight.shape;
    const middle = Math.floor((height * width) / 2) + (this.kind === 'B' ? 1 : 0);
    const mask = Float32Array.from({ length: height * width }, (_, i) => (i < middle ? 1 : 0));
    const seen = this.weight.mul(constant(ndarray(mask, [height, width])));
    return conv2d(x, seen, this.bias, this.options);
  }
}

class ResidualBlock extends Module {
  readonly convIn: Conv2d;
  readonly masked: MaskedConv2d;
  readonly convOut: Conv2d;
  constructor(channels: number, rng: Generator) {
    super();
    this.convIn = new Conv2d(channels, channels / 2, 1, {}, rng);
    this.masked = new MaskedConv2d('B', channels / 2, channels / 2, 3, rng);
    this.convOut = new Conv2d(channels / 2, channels, 1, {}, rng);
  }
  forward(x: Tensor): Tensor {
    return x.add(this.convOut.forward(relu(this.masked.forward(relu(this.convIn.forward(relu(x)))))));
  }
}

class Head extends Module {
  readonly conv_1: Conv2d;
  readonly conv_2: Conv2d;
  constructor(channels: number, hidden: number, outChannels: number, rng: Generator) {
    super();
    this.conv_1 = new Conv2d(channels, hidden, 1, {}, rng);
    this.conv_2 = new Conv2d(hidden, outChannels, 1, {}, rng);
  }
  forward(x: Tensor): Tensor {
    return this.conv_2.forward(relu(this.conv_1.forward(relu(x))));
  }
}

export interface PixelCNNOptions {
  /** Residual blocks, 15 in the paper. */
  readonly blocks?: number;
  /** Width of the residual stream, an even number; 2 h in the paper, with h = 16 for MNIST. */
  readonly channels?: number;
  readonly headChannels?: number;
}

/** PixelCNN (van den Oord et al. 2016a): masked convolutions with residual connections. */
export class PixelCNN extends Module implements AutoregressiveModel {
  static readonly className = 'PixelCNN';
  readonly input: MaskedConv2d;
  readonly blocks: readonly ResidualBlock[];
  readonly head: Head;
  readonly order: Int32Array;

  /** @throws RangeError for a number of channels that is odd. */
  constructor(
    readonly shape: ImageShape,
    { blocks = 15, channels = 32, headChannels = 32 }: PixelCNNOptions,
    rng: Generator,
  ) {
    super();
    if (channels % 2) throw new RangeError(`PixelCNN: ${channels} channels, expected an even number`);
    this.order = pixelOrder(shape);
    this.input = new MaskedConv2d('A', shape[0], channels, 7, rng);
    this.blocks = Array.from({ length: blocks }, () => new ResidualBlock(channels, rng));
    this.head = new Head(channels, headChannels, shape[0], rng);
  }

  forward(x: Tensor): Tensor {
    checkImages('PixelCNN', this.shape, x);
    return this.head.forward(this.blocks.reduce((y, block) => block.forward(y), this.input.forward(x)));
  }
}

/** tanh of one half of the channels, let through by the sigmoid of the other. */
function gated(x: Tensor): Tensor {
  const [value, gate] = split(x, 2, 1);
  return value.tanh().mul(gate.sigmoid());
}

/** Two stacks without a blind spot: rows above (vertical), and pixels to the left (horizontal). */
class GatedLayer extends Module {
  readonly vstack_1xN: Conv2d;
  readonly vstack_Nx1: Conv2d;
  readonly vstack_1x1: Conv2d;
  readonly link: Conv2d;
  readonly hstack_1xN: Conv2d;
  readonly hstackResidual: Conv2d;
  readonly hstackSkip: Conv2d;

  /** @param first the layer that must not see the pixel itself. */
  constructor(
    inChannels: number,
    channels: number,
    kernel: number,
    readonly first: boolean,
    rng: Generator,
  ) {
    super();
    const [reach, half] = [(kernel - 1) / 2, (kernel + 1) / 2];
    this.vstack_1xN = new Conv2d(inChannels, channels, [1, kernel], { padding: [0, reach] }, rng);
    // One row more above than the kernel needs: what comes out at a row has seen the rows above it.
    const above = [
      [reach + 1, 0],
      [0, 0],
    ] as const;
    this.vstack_Nx1 = new Conv2d(channels, 2 * channels, [half, 1], { padding: above }, rng);
    this.vstack_1x1 = new Conv2d(inChannels, 2 * channels, 1, {}, rng);
    this.link = new Conv2d(2 * channels, 2 * channels, 1, {}, rng);
    const left = [
      [0, 0],
      [reach + Number(first), 0],
    ] as const;
    this.hstack_1xN = new Conv2d(inChannels, 2 * channels, [1, half], { padding: left }, rng);
    this.hstackResidual = new Conv2d(channels, channels, 1, {}, rng);
    this.hstackSkip = new Conv2d(channels, channels, 1, {}, rng);
  }

  forward(vertical: Tensor, horizontal: Tensor): { vertical: Tensor; horizontal: Tensor; skip: Tensor } {
    const [, , height, width] = vertical.shape;
    const above = this.vstack_Nx1.forward(this.vstack_1xN.forward(vertical)).slice(2, 0, height);
    const left = this.hstack_1xN.forward(horizontal).slice(3, 0, width);
    const y = gated(this.link.forward(above).add(left));
    const residual = this.hstackResidual.forward(y);
    return {
      vertical: gated(above.add(this.vstack_1x1.forward(vertical))),
      horizontal: this.first ? residual : residual.add(horizontal),
      skip: this.hstackSkip.forward(y),
    };
  }
}

export interface GatedPixelCNNOptions {
  /** Layers after the first. */
  readonly gatedLayers?: number;
  readonly gatedChannels?: number;
  readonly headChannels?: number;
}

/** Gated PixelCNN (van den Oord et al. 2016b), laid out as pytorch-generative's. */
export class GatedPixelCNN extends Module implements AutoregressiveModel {
  static readonly className = 'GatedPixelCNN';
  readonly input: GatedLayer;
  readonly gatedLayers: readonly GatedLayer[];
  readonly head: Head;
  readonly order: Int32Array;

  constructor(
    readonly shape: ImageShape,
    { gatedLayers = 10, gatedChannels = 128, headChannels = 32 }: GatedPixelCNNOptions,
    rng: Generator,
  ) {
    super();
    this.order = pixelOrder(shape);
    this.input = new GatedLayer(shape[0], gatedChannels, 7, true, rng);
    this.gatedLayers = Array.from(
      { length: gatedLayers },
      () => new GatedLayer(gatedChannels, gatedChannels, 3, false, rng),
    );
    this.head = new Head(gatedChannels, headChannels, shape[0], rng);
  }

  forward(x: Tensor): Tensor {
    checkImages('GatedPixelCNN', this.shape, x);
    let { vertical, horizontal, skip } = this.input.forward(x, x);
    for (const layer of this.gatedLayers) {
      const next = layer.forward(vertical, horizontal);
      [vertical, horizontal, skip] = [next.vertical, next.horizontal, skip.add(next.skip)];
    }
    return this.head.forward(skip);
  }
}
