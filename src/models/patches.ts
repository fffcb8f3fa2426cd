import type { Tensor } from '../tensor/index.js';

/**
 * Puts patches, row by row as {@link PatchEmbed} cuts them, together again.
 * @param patches [N, rows * columns, patchSize * patchSize * channels], the channels innermost.
 * @param size of the image that was cut, [height, width]; what lies beyond its last whole patch is lost.
 * @returns [N, channels, rows * patchSize, columns * patchSize].
 */
export function fromPatches(patches: Tensor, size: readonly [number, number], patchSize: number): Tensor {
  const [rows, columns] = size.map((length) => Math.floor(length / patchSize));
  const n = patches.shape[0];
  return patches
    .reshape([n, rows, columns, patchSize, patchSize, -1])
    .transpose([0, 5, 1, 3, 2, 4])
    .reshape([n, -1, rows * patchSize, columns * patchSize]);
}
