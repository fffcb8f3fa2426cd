import { ndarray } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { constant, linear, normalize, type Tensor, type Variable } from '../tensor/index.js';
import { Conv2d } from './conv2d.js';
import { buffer, Module } from './module.js';
import { sinCos2d } from './sincos.js';

export interface PatchEmbedConfig {
  readonly height: number;
  readonly width: number;
  readonly patchSize: number;
  readonly inChannels: number;
  readonly embedDim: number;
  readonly layerNorm?: boolean;
  readonly bias?: boolean;
  /** Default 1. */
  readonly interpolationScale?: number;
  /** Default 'sincos'; null leaves positions out. */
  readonly posEmbedType?: 'sincos' | null;
  /** Positions are the centre of a saved grid of this many patches a side (Stable Diffusion 3). */
  readonly posEmbedMaxSize?: number;
}

/**
 * Cuts images [N, C, H, W] into patches, row by row, and embeds them with their positions:
 * [N, (H / patchSize) * (W / patchSize), embedDim] (Dosovitskiy et al. 2021). Rows and columns beyond the last whole patch are ignored.
 */
export class PatchEmbed extends Module {
  /** Saved only with `posEmbedMaxSize`: [1, maxSize * maxSize, embedDim]. */
  readonly posEmbed?: Variable;
  readonly proj: Conv2d;
  private readonly grids = new Map<string, Tensor>();

  constructor(
    readonly config: PatchEmbedConfig,
    rng: Generator,
  ) {
    super();
    const { inChannels, embedDim, patchSize, bias, posEmbedMaxSize: size, posEmbedType } = config;
    this.proj = new Conv2d(inChannels, embedDim, patchSize, { stride: patchSize, bias }, rng);
    if (size && posEmbedType !== null) {
      const grid = sinCos2d(embedDim, [size, size], this.gridOptions);
      this.posEmbed = buffer({ ...grid, shape: [1, ...grid.shape] });
    }
  }

  private get gridOptions() {
    const { height, patchSize, interpolationScale } = this.config;
    return { baseSize: Math.floor(height / patchSize), interpolationScale };
  }

  /** @throws RangeError when the image has more patches a side than `posEmbedMaxSize`. */
  forward(images: Tensor): Tensor {
    const { patchSize: p, layerNorm, embedDim, posEmbedType } = this.config;
    const [n, c] = images.shape;
    const [rows, columns] = [images.shape[2], images.shape[3]].map((size) => Math.floor(size / p));
    // The strided convolution as a matrix product on unfolded patches, which leaves the result in token order.
    const patches = images
      .slice(2, 0, rows * p)
      .slice(3, 0, columns * p)
      .reshape([n, c, rows, p, columns, p])
      .transpose([0, 2, 4, 1, 3, 5])
      .reshape([n, rows * columns, c * p * p]);
    const embedded = linear(patches, this.proj.weight.reshape([embedDim, c * p * p]), this.proj.bias);
    const tokens = layerNorm ? normalize(embedded, 1, 1e-6) : embedded;
    return posEmbedType === null ? tokens : tokens.add(this.positions(rows, columns));
  }

  /** [1, rows * columns, embedDim] */
  private positions(rows: number, columns: number): Tensor {
    const { posEmbedMaxSize: size, embedDim } = this.config;
    if (this.posEmbed && size) {
      if (rows > size || columns > size)
        throw new RangeError(`PatchEmbed: ${rows}x${columns} patches, expected at most ${size}x${size}`);
      const [top, left] = [rows, columns].map((count) => Math.floor((size - count) / 2));
      const centre = this.posEmbed.reshape([size, size, embedDim]).slice(0, top, top + rows);
      return centre.slice(1, left, left + columns).reshape([1, rows * columns, embedDim]);
    }
    const key = `${rows} ${columns}`;
    let grid = this.grids.get(key);
    if (!grid) {
      const { data } = sinCos2d(embedDim, [rows, columns], this.gridOptions);
      grid = constant(ndarray(data, [1, rows * columns, embedDim]));
      this.grids.set(key, grid);
    }
    return grid;
  }
}
