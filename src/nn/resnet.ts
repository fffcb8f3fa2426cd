import type { Generator } from '../random/index.js';
import { split, type Tensor } from '../tensor/index.js';
import { type ActivationName, activate } from './activations.js';
import { modulateChannels } from './adaGroupNorm.js';
import { Conv2d } from './conv2d.js';
import { Dropout } from './dropout.js';
import { firDownsample2d, firUpsample2d } from './fir.js';
import { GroupNorm } from './groupNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { Downsample2D, Upsample2D } from './resample.js';

export interface ResnetBlock2DConfig {
  readonly inChannels: number;
  /** Default `inChannels`. */
  readonly outChannels?: number;
  /** Width of the timestep's embedding; default 512, null for a block without. */
  readonly tembChannels?: number | null;
  /** Default 32. */
  readonly groups?: number;
  /** Groups of the second norm; default `groups`. */
  readonly groupsOut?: number;
  /** Default 1e-6. */
  readonly eps?: number;
  readonly dropout?: number;
  /** Default 'swish'. */
  readonly nonLinearity?: ActivationName;
  /** The embedding is added before the second norm (default), or scales and shifts after it. */
  readonly timeEmbeddingNorm?: 'default' | 'scale_shift';
  /** The embedding comes activated. */
  readonly skipTimeAct?: boolean;
  /** Divides the sum of both ways; default 1. */
  readonly outputScaleFactor?: number;
  /** Project the input that is added; default: where the channels change. */
  readonly useInShortcut?: boolean;
  readonly convShortcutBias?: boolean;
  readonly conv2dOutChannels?: number;
  /** Double the image on both ways. */
  readonly up?: boolean;
  /** Halve it. */
  readonly down?: boolean;
  /** Double or halve it by a smoothing filter, not by repeating or averaging pixels. */
  readonly kernel?: 'fir';
}

/** Residual block of diffusion UNets: norm, activation and convolution twice, with the timestep in between. */
export class ResnetBlock2D extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv2d;
  readonly timeEmbProj?: Linear;
  readonly norm2: GroupNorm;
  readonly dropout: Dropout;
  readonly conv2: Conv2d;
  readonly convShortcut?: Conv2d;
  private readonly resample?: { forward(x: Tensor): Tensor };

  /** @throws RangeError for an unknown timeEmbeddingNorm. */
  constructor(
    readonly config: ResnetBlock2DConfig,
    rng: Generator,
  ) {
    super();
    const { inChannels, outChannels = inChannels, tembChannels = 512, eps = 1e-6 } = config;
    const { groups = 32, groupsOut = groups, timeEmbeddingNorm = 'default' } = config;
    const finalChannels = config.conv2dOutChannels ?? outChannels;
    if (timeEmbeddingNorm !== 'default' && timeEmbeddingNorm !== 'scale_shift')
      throw new RangeError(`ResnetBlock2D: timeEmbeddingNorm '${timeEmbeddingNorm}', expected default or scale_shift`);
    this.norm1 = new GroupNorm(groups, inChannels, { eps });
    this.conv1 = new Conv2d(inChannels, outChannels, 3, { padding: 1 }, rng);
    if (tembChannels)
      this.timeEmbProj = new Linear(tembChannels, timeEmbeddingNorm === 'default' ? outChannels : 2 * outChannels, rng);
    this.norm2 = new GroupNorm(groupsOut, outChannels, { eps });
    this.dropout = new Dropout(config.dropout ?? 0);
    this.conv2 = new Conv2d(outChannels, finalChannels, 3, { padding: 1 }, rng);
    const fir = config.kernel === 'fir';
    if (config.up) this.resample = fir ? { forward: firUpsample2d } : new Upsample2D({ channels: inChannels }, rng);
    else if (config.down)
      this.resample = fir ? { forward: firDownsample2d } : new Downsample2D({ channels: inChannels }, rng);
    if (config.useInShortcut ?? inChannels !== finalChannels)
      this.convShortcut = new Conv2d(inChannels, finalChannels, 1, { bias: config.convShortcutBias }, rng);
  }

  /** @param x [N, inChannels, H, W]. @param temb [N, tembChannels]. @throws Error when a needed `temb` is missing. */
  forward(x: Tensor, temb?: Tensor): Tensor {
    const {
      nonLinearity = 'swish',
      skipTimeAct = false,
      timeEmbeddingNorm = 'default',
      outputScaleFactor = 1,
    } = this.config;
    const resampled = (y: Tensor) => (this.resample ? this.resample.forward(y) : y);
    const first = this.conv1.forward(resampled(activate(nonLinearity, this.norm1.forward(x))));

    if (this.timeEmbProj && !temb) throw new Error('ResnetBlock2D: needs the embedding of the timestep');
    const time = this.timeEmbProj?.forward(skipTimeAct ? temb! : activate(nonLinearity, temb!));
    const between = this.withTime(first, timeEmbeddingNorm, time);

    const second = this.conv2.forward(this.dropout.forward(activate(nonLinearity, between)));
    const shortcut = this.convShortcut ? this.convShortcut.forward(resampled(x)) : resampled(x);
    return shortcut.add(second).div(outputScaleFactor);
  }

  private withTime(x: Tensor, how: 'default' | 'scale_shift', time?: Tensor): Tensor {
    if (!time) return this.norm2.forward(x);
    if (how === 'default') return this.norm2.forward(x.add(time.reshape([...time.shape, 1, 1])));
    const [scale, shift] = split(time, 2, 1);
    return modulateChannels(this.norm2.forward(x), shift, scale);
  }
}
