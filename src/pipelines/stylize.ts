import { type NdArray, ndarray } from '../array/index.js';
import type { AdaINNet } from '../models/index.js';
import { type Compiled, type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import { coral } from './coral.js';

type Image = NdArray<'float32'>;

/** All that AdaIN takes from a style: mean and standard deviation of each channel of relu4_1, [1, C, 1, 1]. */
export interface Style {
  readonly mean: NdArray;
  readonly std: NdArray;
}

/** The style between several: AdaIN is linear in a style's statistics, so that mixing them mixes what is decoded. */
export function mixStyles(styles: readonly Style[], weights: readonly number[] = styles.map(() => 1)): Style {
  const sum = weights.reduce((a, b) => a + b, 0);
  if (styles.length === 0 || weights.length !== styles.length || !weights.every((w) => w >= 0) || !(sum > 0))
    throw new RangeError(
      `mixStyles: weights [${weights}] for ${styles.length} styles, expected one of at least 0 for each, not all 0`,
    );
  const mixed = (kind: keyof Style): NdArray => {
    const arrays = styles.map((style) => style[kind].data as Float32Array);
    const data = arrays[0].map((_, i) => arrays.reduce((total, array, k) => total + array[i] * weights[k], 0) / sum);
    return ndarray(Float32Array.from(data), styles[0][kind].shape);
  };
  return { mean: mixed('mean'), std: mixed('std') };
}

/** One image [C, H, W] or [1, C, H, W] in [-1, 1] as [3, H, W] in [0, 1]. */
function colourImage(name: string, { shape, data }: Image): Image {
  const [channels, height, width] = shape.slice(-3);
  const count = shape.length === 4 ? shape[0] : 1;
  if (shape.length < 3 || shape.length > 4 || count !== 1 || (channels !== 1 && channels !== 3))
    throw new RangeError(`stylize: ${name} [${shape}], expected one image [1 or 3 channels, H, W]`);
  const plane = height * width;
  const out = new Float32Array(3 * plane);
  for (let i = 0; i < out.length; i++) out[i] = (data[channels === 1 ? i % plane : i] + 1) / 2;
  return ndarray(out, [3, height, width]);
}

const batched = ({ data, shape }: Image): Image => ndarray(data as Float32Array<ArrayBuffer>, [1, ...shape]);

/** A net made ready for many pictures: it compiles once for each size. */
export class Stylizer {
  readonly #encode: Compiled<[Tensor], { mean: Tensor; std: Tensor }>;
  readonly #transfer: Compiled<[Tensor, { mean: Tensor; std: Tensor }, Tensor], Tensor>;

  constructor(net: AdaINNet, options: CompileOptions = {}) {
    const frozen = { freeze: true, ...options };
    this.#encode = compile((images: Tensor) => ({ ...net.styleOf(images) }), frozen);
    this.#transfer = compile(
      (content: Tensor, style: { mean: Tensor; std: Tensor }, alpha: Tensor) =>
        net.forward(content, style, alpha).mul(2).sub(1).clamp(-1, 1),
      frozen,
    );
  }

  /**
   * The style of a picture of any size from 9 x 9 on.
   * @param image [C, H, W] in [-1, 1], C is 1 or 3. @param coloursOf recoloured as this picture first (CORAL).
   */
  async style(image: Image, coloursOf?: Image): Promise<Style> {
    const picture = colourImage('style', image);
    const own = coloursOf ? coral(picture, colourImage('content', coloursOf)) : picture;
    return this.#encode(batched(own));
  }

  /**
   * A picture in a style.
   * @param image [C, H, W] in [-1, 1], of at least 9 x 9, C is 1 or 3. @param alpha 0 (as it is) to 1 (all of the style).
   * @returns [3, H, W] in [-1, 1]. @throws RangeError for another shape or alpha.
   */
  async apply(image: Image, style: Style, alpha = 1): Promise<Image> {
    if (!(alpha >= 0 && alpha <= 1)) throw new RangeError(`stylize: alpha ${alpha}, expected 0 to 1`);
    const { data, shape } = await this.#transfer(
      batched(colourImage('content', image)),
      { mean: style.mean, std: style.std },
      ndarray([alpha], []),
    );
    return ndarray(data as Float32Array<ArrayBuffer>, shape.slice(1));
  }

  /** Frees what was compiled. */
  async release(): Promise<void> {
    await this.#encode.release();
    await this.#transfer.release();
  }
}

export interface StylizeOptions {
  readonly net: AdaINNet;
  /** [C, H, W] in [-1, 1], of at least 9 x 9 pixels; C is 1 or 3. */
  readonly content: Image;
  /** One or more pictures as `content`, each of a size of its own. */
  readonly styles: readonly Image[];
  /** How much of each style; default: the same of all. */
  readonly weights?: readonly number[];
  /** 0 (content as it is) to 1 (default). */
  readonly alpha?: number;
  /** Keep the content's colours: the styles are recoloured before their strokes are taken over. */
  readonly preserveColour?: boolean;
  readonly compile?: CompileOptions;
}

/** A picture in the style of others (Huang & Belongie 2017), [3, H, W] in [-1, 1]. @throws RangeError for a wrong shape or weight. */
export async function stylize(options: StylizeOptions): Promise<Image> {
  const { net, content, styles, weights, alpha, preserveColour = false } = options;
  const stylizer = new Stylizer(net, options.compile);
  try {
    const found: Style[] = [];
    for (const image of styles) found.push(await stylizer.style(image, preserveColour ? content : undefined));
    return await stylizer.apply(content, mixStyles(found, weights), alpha);
  } finally {
    await stylizer.release();
  }
}
