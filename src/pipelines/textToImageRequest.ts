import type { NdArray } from '../array/index.js';
import type { PlanOptions, Sampler } from '../samplers/index.js';
import { checkMask } from './masks.js';
import type { TextConditioned, TextToImageOptions } from './textToImage.js';

/** diffusers' order of a scheduler: how many calls of the model one step takes. */
const callsPerStep = ({ className }: Sampler): number => (/Heun|KDPM2/.test(className) ? 2 : 1);

/** The call to begin with, so that `strength` of the steps are made. @throws RangeError for a strength outside (0, 1]. */
export function startOf(sampler: Sampler, { steps }: PlanOptions, strength: number): number {
  if (!(strength > 0 && strength <= 1)) throw new RangeError(`strength ${strength}: expected more than 0, at most 1`);
  if (strength === 1) return 0;
  if (steps === undefined) throw new TypeError('strength: needs the number of steps');
  const made = Math.floor(steps * strength);
  if (made === 0) throw new RangeError(`strength ${strength} of ${steps} steps is less than one step: raise either`);
  return (steps - made) * callsPerStep(sampler);
}

/** @throws RangeError or TypeError that names the option at fault. */
export function checkRequest(
  { image, mask, noise, imagesPerPrompt = 1 }: TextToImageOptions,
  prompts: number,
  size: readonly [number, number],
  factor: number,
): void {
  if (prompts === 0) throw new RangeError('prompt: expected at least one');
  if (!Number.isInteger(imagesPerPrompt) || imagesPerPrompt < 1)
    throw new RangeError(`imagesPerPrompt ${imagesPerPrompt}: expected a whole number from 1`);
  if (size.some((side) => !Number.isInteger(side) || side < factor || side % factor !== 0))
    throw new RangeError(`size ${size.join('x')} (height x width): expected multiples of ${factor}`);
  if (image && (image.shape.length !== 4 || image.shape[2] !== size[0] || image.shape[3] !== size[1]))
    throw new RangeError(`image [${image.shape}]: expected [N, channels, ${size}], the size of the pictures`);
  if (mask && !image) throw new TypeError('mask: needs an image to paint on');
  if (mask) checkMask(mask, prompts * imagesPerPrompt, size);
  if (noise && noise.shape[0] !== prompts * imagesPerPrompt)
    throw new RangeError(`noise [${noise.shape}]: expected one for each of ${prompts * imagesPerPrompt} pictures`);
}

export const sizeOf = (image: NdArray | undefined): readonly [number, number] | undefined =>
  image && [image.shape[2], image.shape[3]];

/** What the model was made for. @throws TypeError when it does not say. */
export function usualSize({ config: { sampleSize } }: TextConditioned, factor: number): readonly [number, number] {
  if (!sampleSize) throw new TypeError('size: this model is for any size; say which [height, width]');
  const [height, width] = typeof sampleSize === 'number' ? [sampleSize, sampleSize] : sampleSize;
  return [height * factor, width * factor];
}

/** One text for each prompt. @throws RangeError when there are others. */
export function listOf(texts: string | readonly string[], count: number, name: string): readonly string[] {
  if (typeof texts === 'string') return Array.from({ length: count }, () => texts);
  if (texts.length !== count)
    throw new RangeError(`${texts.length} ${name} prompts for ${count} prompts, expected as many`);
  return texts;
}
