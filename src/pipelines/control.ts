import type { NdArray } from '../array/index.js';
import type { StepInfo } from '../guidance/index.js';
import type { ControlNet, UNet2DConditions } from '../models/index.js';
import type { Tensor } from '../tensor/index.js';

/** A ControlNet in use (Zhang et al. 2023): what it is shown, and how much it says when. */
export interface Control {
  readonly net: ControlNet;
  /** What the pictures are to follow (edges, depth ...), in [0, 1], of the pictures' size: [1 or N, channels, H, W]. */
  readonly image: NdArray<'float32'>;
  /** Default 1. */
  readonly scale?: number;
  /** Shares of the steps in which it speaks; default [0, 1]. */
  readonly interval?: readonly [from: number, to: number];
  /** It guesses without a prompt: deep layers say more than early ones, and only the wanted condition is controlled. */
  readonly guess?: boolean;
}

/** @throws RangeError for an interval that is not rising inside [0, 1]. */
export function checkControls(controls: readonly Control[]): void {
  for (const { interval: [from, to] = [0, 1] } of controls)
    if (!(from >= 0 && from < to && to <= 1))
      throw new RangeError(`ControlNet: interval [${from}, ${to}] must be rising and inside [0, 1]`);
}

/** Which nets speak at a step, as '0,2': a step must lie in the interval as a whole, as in diffusers. */
export const speaking = (controls: readonly Control[], { index, total }: StepInfo): string =>
  [...controls.keys()]
    .filter((i) => {
      const [from, to] = controls[i].interval ?? [0, 1];
      return index / total >= from && (index + 1) / total <= to;
    })
    .join();

/** What the nets that speak add to the UNet's skips and middle. */
export function controlResiduals(
  controls: readonly Control[],
  variant: string,
  inputs: {
    readonly x: Tensor;
    readonly timestep: Tensor;
    readonly conditions: UNet2DConditions;
    readonly images: readonly Tensor[];
    readonly scales: Tensor;
    readonly condition: string;
  },
): Pick<UNet2DConditions, 'downBlockAdditionalResiduals' | 'midBlockAdditionalResidual'> {
  const spoken = variant === '' ? [] : variant.split(',').map(Number);
  const answers = spoken
    .filter((i) => !controls[i].guess || inputs.condition === 'positive')
    .map((i) => {
      const { net, guess = false } = controls[i];
      const conditioningScale = inputs.scales.slice(0, i, i + 1);
      return net.forward(inputs.x, inputs.timestep, inputs.images[i], inputs.conditions, { conditioningScale, guess });
    });
  if (answers.length === 0) return {};
  return {
    downBlockAdditionalResiduals: answers
      .map(({ down }) => down)
      .reduce((a, b) => a.map((residual, i) => residual.add(b[i]))),
    midBlockAdditionalResidual: answers.map(({ mid }) => mid).reduce((a, b) => a.add(b)),
  };
}
