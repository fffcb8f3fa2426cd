import type { Generator } from '../../random/index.js';
import { ActNorm } from './actNorm.js';
import { AffineCoupling, type AffineCouplingOptions } from './affineCoupling.js';
import { ConvNet } from './conditioners.js';
import { type Flow, FlowSequence } from './flow.js';
import { Invertible1x1Conv, LuInvertible1x1Conv } from './invertible1x1.js';

export interface GlowStepOptions extends AffineCouplingOptions {
  readonly hiddenChannels: number;
  /** Factorise the 1x1 convolution; default true. */
  readonly lu?: boolean;
  /** Slope of the network's rectifiers below 0; default 0. */
  readonly leaky?: number;
  /** The couplings begin as the identity; default true. */
  readonly zeroInit?: boolean;
  /** Actnorm inside the coupling's network; default false. */
  readonly netActNorm?: boolean;
}

/**
 * One step of Glow (Kingma and Dhariwal 2018) from data to latents: actnorm, invertible 1x1 convolution (but for one
 * channel), affine coupling by a 3x3, 1x1, 3x3 network. The scale map defaults to Glow's 'sigmoid'.
 */
export function glowStep(channels: number, options: GlowStepOptions, rng: Generator): FlowSequence {
  const { hiddenChannels, lu = true, scale = true, scaleMap = 'sigmoid', split = 'channel' } = options;
  const { leaky, zeroInit, netActNorm } = options;
  const larger = Math.ceil(channels / 2);
  const [kept, changed] = split.startsWith('checkerboard')
    ? [channels, channels]
    : split === 'channel'
      ? [larger, channels - larger]
      : [channels - larger, larger];
  const widths = [kept, hiddenChannels, hiddenChannels, (scale ? 2 : 1) * changed];
  const net = new ConvNet(widths, [3, 1, 3], { leaky, zeroInit, actNorm: netActNorm }, rng);
  const mixing = lu ? new LuInvertible1x1Conv(channels, rng) : new Invertible1x1Conv(channels, rng);
  const flows: Flow[] = [new ActNorm([channels, 1, 1], { unbiased: true })];
  if (channels > 1) flows.push(mixing);
  return new FlowSequence([...flows, new AffineCoupling(net, { scale, scaleMap, split })]);
}
