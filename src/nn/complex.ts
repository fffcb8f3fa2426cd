import { split, stack, type Tensor } from '../tensor/index.js';

/** A complex tensor as two real ones. */
export interface Complex {
  readonly re: Tensor;
  readonly im: Tensor;
}

export const complex = (re: Tensor, im: Tensor): Complex => ({ re, im });
/** From pairs [..., 2], as torch.view_as_complex. */
export function fromPairs(x: Tensor): Complex {
  const [re, im] = split(x, 2, x.rank - 1).map((part) => part.squeeze(-1));
  return { re, im };
}
export const toPairs = ({ re, im }: Complex): Tensor => stack([re, im], re.rank);

export const times = (a: Complex, b: Complex): Complex => ({
  re: a.re.mul(b.re).sub(a.im.mul(b.im)),
  im: a.re.mul(b.im).add(a.im.mul(b.re)),
});
export const scaled = ({ re, im }: Complex, by: Tensor | number): Complex => ({ re: re.mul(by), im: im.mul(by) });
export const plusReal = ({ re, im }: Complex, x: number): Complex => ({ re: re.add(x), im });
/** 1 / a; `eps` is added to |a|². */
export function inverse({ re, im }: Complex, eps = 0): Complex {
  const square = re.square().add(im.square()).add(eps);
  return { re: re.div(square), im: im.neg().div(square) };
}
export function exponential({ re, im }: Complex): Complex {
  const size = re.exp();
  return { re: size.mul(im.cos()), im: size.mul(im.sin()) };
}
/** Applies a move of elements (reshape, slice ...) to both parts. */
export const both = ({ re, im }: Complex, f: (x: Tensor) => Tensor): Complex => ({ re: f(re), im: f(im) });
