import { z } from 'zod';
import { ndarray, zeros } from '../array/index.js';
import { parseFields } from '../io/index.js';
import {
  adaIN,
  type ChannelStatistics,
  Conv2d,
  channelStatistics,
  Module,
  reflectionPad2d,
  withChannelStatistics,
} from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { avgPool2d, concat, maxPool2d, relu, resizeNearest, stopGradient, type Tensor } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';

export const adainNetConfig = modelConfig({
  /** Channels at full, half, quarter and eighth size; default: VGG-19's. */
  channels: z.tuple([positive, positive, positive, positive]).default([64, 128, 256, 512]),
  /** Of 2 x 2 values in the encoder; average where its weights are random or few, so that no single dots count (Gatys et al. 2016). */
  pooling: z.enum(['max', 'average']).default('max'),
});
export type AdaINNetConfig = z.output<typeof adainNetConfig>;
export type AdaINNetOptions = z.input<typeof adainNetConfig>;

type Channels = AdaINNetConfig['channels'];
type Pooling = AdaINNetConfig['pooling'];

/** Images must have at least this height and width: reflection needs two pixels at an eighth of the size. */
const leastSide = 9;

const conv3x3 = (from: number, to: number, rng: Generator): Conv2d => new Conv2d(from, to, 3, {}, rng);
const reflected = (conv: Conv2d, x: Tensor): Tensor => conv.forward(reflectionPad2d(x));
const activated = (conv: Conv2d, x: Tensor): Tensor => relu(reflected(conv, x));
const doubled = (x: Tensor): Tensor => resizeNearest(x, [2 * x.shape[2], 2 * x.shape[3]]);

/** 2 x 2 maxima or means; an odd last row or column has windows of its own (torch's ceil_mode). */
function halved(x: Tensor, pooling: Pooling): Tensor {
  const even = [2, 3].reduce((y, axis) => (y.shape[axis] % 2 ? concat([y, y.slice(axis, -1)], axis) : y), x);
  return pooling === 'max' ? maxPool2d(even, 2) : avgPool2d(even, 2);
}

/** VGG-19 (Simonyan & Zisserman 2015) up to relu4_1, with reflection instead of zero padding. */
export class StyleEncoder extends Module {
  /** 1x1, of the colours; as drawn, it takes away ImageNet's mean and divides by its standard deviation. */
  readonly normalize: Conv2d;
  readonly conv1_1: Conv2d;
  readonly conv1_2: Conv2d;
  readonly conv2_1: Conv2d;
  readonly conv2_2: Conv2d;
  readonly conv3_1: Conv2d;
  readonly conv3_2: Conv2d;
  readonly conv3_3: Conv2d;
  readonly conv3_4: Conv2d;
  readonly conv4_1: Conv2d;

  constructor(
    [a, b, c, d]: Channels,
    rng: Generator,
    readonly pooling: Pooling = 'max',
  ) {
    super();
    this.normalize = new Conv2d(3, 3, 1, {}, rng);
    this.conv1_1 = conv3x3(3, a, rng);
    this.conv1_2 = conv3x3(a, a, rng);
    this.conv2_1 = conv3x3(a, b, rng);
    this.conv2_2 = conv3x3(b, b, rng);
    this.conv3_1 = conv3x3(b, c, rng);
    this.conv3_2 = conv3x3(c, c, rng);
    this.conv3_3 = conv3x3(c, c, rng);
    this.conv3_4 = conv3x3(c, c, rng);
    this.conv4_1 = conv3x3(c, d, rng);
    // He et al. 2015: torch's default would let nine layers fade to nothing.
    for (const { weight, bias } of this.layers) {
      weight.set(normalWeights(rng, weight.shape, { std: Math.sqrt(2 / (9 * weight.shape[1])) }));
      bias!.set(zeros(bias!.shape));
    }
    const std = [0.229, 0.224, 0.225];
    this.normalize.weight.set(
      ndarray(
        std.flatMap((s, i) => std.map((_, j) => (i === j ? 1 / s : 0))),
        [3, 3, 1, 1],
      ),
    );
    this.normalize.bias!.set(
      ndarray(
        [0.485, 0.456, 0.406].map((mean, i) => -mean / std[i]),
        [3],
      ),
    );
  }

  /** The 3x3 convolutions, from the image on. */
  get layers(): readonly Conv2d[] {
    const { conv1_1, conv1_2, conv2_1, conv2_2, conv3_1, conv3_2, conv3_3, conv3_4, conv4_1 } = this;
    return [conv1_1, conv1_2, conv2_1, conv2_2, conv3_1, conv3_2, conv3_3, conv3_4, conv4_1];
  }

  /**
   * What every layer gives after its ReLU. Sizes are halved upwards: [N, c, ceil(H / 2), ceil(W / 2)] and so on.
   * @param images [N, 3, H, W] in [0, 1]. @throws RangeError unless they are RGB and at least 9 x 9.
   */
  activations(images: Tensor): Tensor[] {
    const [, channels, height, width] = images.shape;
    if (images.rank !== 4 || channels !== 3 || Math.min(height, width) < leastSide)
      throw new RangeError(
        `AdaINNet: images [${images.shape}], expected [N, 3, H, W] of at least ${leastSide} x ${leastSide} pixels`,
      );
    const afterPool = [this.conv2_1, this.conv3_1, this.conv4_1].map((conv) => this.layers.indexOf(conv) - 1);
    const outputs: Tensor[] = [];
    let x = this.normalize.forward(images);
    for (const [i, layer] of this.layers.entries()) {
      if (i > 0) x = afterPool.includes(i - 1) ? halved(outputs[i - 1], this.pooling) : outputs[i - 1];
      outputs.push(activated(layer, x));
    }
    return outputs;
  }

  /** relu1_1, relu2_1, relu3_1 and relu4_1 of {@link activations}: where style is compared. */
  features(images: Tensor): [Tensor, Tensor, Tensor, Tensor] {
    const all = this.activations(images);
    return [all[0], all[2], all[4], all[8]];
  }

  /** relu4_1 alone: [N, channels[3], ceil(H / 8), ceil(W / 8)]. */
  forward(images: Tensor): Tensor {
    return this.features(images)[3];
  }
}

/** The encoder mirrored, with nearest upsampling and without any norm. Its layers have the names of those they undo. */
export class StyleDecoder extends Module {
  readonly conv4_1: Conv2d;
  readonly conv3_4: Conv2d;
  readonly conv3_3: Conv2d;
  readonly conv3_2: Conv2d;
  readonly conv3_1: Conv2d;
  readonly conv2_2: Conv2d;
  readonly conv2_1: Conv2d;
  readonly conv1_2: Conv2d;
  readonly conv1_1: Conv2d;

  constructor([a, b, c, d]: Channels, rng: Generator) {
    super();
    this.conv4_1 = conv3x3(d, c, rng);
    this.conv3_4 = conv3x3(c, c, rng);
    this.conv3_3 = conv3x3(c, c, rng);
    this.conv3_2 = conv3x3(c, c, rng);
    this.conv3_1 = conv3x3(c, b, rng);
    this.conv2_2 = conv3x3(b, b, rng);
    this.conv2_1 = conv3x3(b, a, rng);
    this.conv1_2 = conv3x3(a, a, rng);
    this.conv1_1 = conv3x3(a, 3, rng);
  }

  /** @param features [N, channels[3], h, w]; @returns images [N, 3, 8h, 8w], about [0, 1]. */
  forward(features: Tensor): Tensor {
    const quarter = [this.conv3_4, this.conv3_3, this.conv3_2, this.conv3_1].reduce(
      (x, layer) => activated(layer, x),
      doubled(activated(this.conv4_1, features)),
    );
    const half = activated(this.conv2_1, activated(this.conv2_2, doubled(quarter)));
    return reflected(this.conv1_1, activated(this.conv1_2, doubled(half)));
  }
}

/** What {@link AdaINNet.losses} gives, scalars but for the images. */
export interface StyleLosses {
  /** [N, 3, 8 ceil(H / 8), 8 ceil(W / 8)] */
  readonly images: Tensor;
  /** Mean squared distance of the image's relu4_1 from what the decoder was given. */
  readonly content: Tensor;
  /** Mean squared distances of channel means and standard deviations, summed over the four levels. */
  readonly style: Tensor;
}

const meanSquare = (a: Tensor, b: Tensor): Tensor => a.sub(b).square().mean();

const statisticsDistance = (a: Tensor, b: Tensor): Tensor => {
  const [of, target] = [channelStatistics(a), channelStatistics(b)];
  return meanSquare(of.mean, target.mean).add(meanSquare(of.std, target.std));
};

/**
 * Arbitrary style transfer by adaptive instance normalisation (Huang & Belongie 2017, arXiv:1703.06868), as
 * naoto0804/pytorch-AdaIN has it. Images are in [0, 1].
 */
export class AdaINNet extends Module {
  static readonly className = 'AdaINNet';
  readonly encoder: StyleEncoder;
  readonly decoder: StyleDecoder;
  readonly config: AdaINNetConfig;

  /** @throws TypeError for a config field that is unknown or out of range. */
  constructor(options: AdaINNetOptions, rng: Generator) {
    super();
    this.config = parseFields(AdaINNet.className, adainNetConfig, options);
    this.encoder = new StyleEncoder(this.config.channels, rng, this.config.pooling);
    this.decoder = new StyleDecoder(this.config.channels, rng);
  }

  /** relu4_1 of the content with the channel statistics of the style. @param alpha 0 (content as it is) to 1. */
  target(content: Tensor, style: Tensor, alpha: Tensor | number = 1): Tensor {
    const features = this.encoder.forward(content);
    return mixed(features, adaIN(features, this.encoder.forward(style)), alpha);
  }

  /**
   * The content in the style.
   * @param content [N, 3, H, W]. @param style of relu4_1: see {@link styleOf}. @param alpha 0 to 1.
   * @returns [N, 3, H, W], about [0, 1].
   */
  forward(content: Tensor, style: ChannelStatistics, alpha: Tensor | number = 1): Tensor {
    const features = this.encoder.forward(content);
    const images = this.decoder.forward(mixed(features, withChannelStatistics(features, style), alpha));
    return images.slice(2, 0, content.shape[2]).slice(3, 0, content.shape[3]);
  }

  /** All that the transfer needs to know of a style, [N, C, 1, 1]; a weighted mean of several is a style between them. */
  styleOf(images: Tensor): ChannelStatistics {
    return channelStatistics(this.encoder.forward(images));
  }

  /** What the decoder is trained on; no gradient reaches the target. @param content,style [N, 3, H, W] of any two sizes. */
  losses(content: Tensor, style: Tensor, alpha: Tensor | number = 1): StyleLosses {
    const target = stopGradient(this.target(content, style, alpha));
    const images = this.decoder.forward(target);
    const [ours, theirs] = [this.encoder.features(images), this.encoder.features(style)];
    return {
      images,
      content: meanSquare(ours[3], target),
      style: ours.map((x, i) => statisticsDistance(x, stopGradient(theirs[i]))).reduce((sum, x) => sum.add(x)),
    };
  }
}

const mixed = (content: Tensor, stylized: Tensor, alpha: Tensor | number): Tensor =>
  alpha === 1 ? stylized : content.add(stylized.sub(content).mul(alpha));
