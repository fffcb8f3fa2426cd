import { type NdArray, ndarray } from '../array/index.js';
import type { Classified } from './classifier.js';
import { fid, kid, precisionRecall } from './metrics/index.js';

export interface ImageQuality {
  /** Fréchet distance of the features; smaller is better, and it falls with the number of pictures. */
  readonly fid: number;
  /** Squared maximum mean discrepancy of the features, unbiased: 0 for equal distributions. */
  readonly kid: number;
  /** Share of the pictures that lie among the real ones. */
  readonly precision: number;
  /** Share of the real pictures that lie among these. */
  readonly recall: number;
  /** Share of the pictures that the classifier takes for the class they were made for. */
  readonly accuracy: number;
}

/**
 * How near pictures come to real ones, in a classifier's features. Compare figures of equally many pictures only.
 * @param reference features of real pictures [m, d], m at least the number of pictures: FID uses all, the rest as many.
 * @param labels the class of each picture.
 */
export function imageQuality(
  reference: NdArray<'float32'>,
  pictures: Classified,
  labels: readonly number[],
): ImageQuality {
  const { features, classes } = pictures;
  const [n, width] = features.shape;
  if (labels.length !== n) throw new RangeError(`imageQuality: ${labels.length} labels for ${n} pictures`);
  const real = ndarray(reference.data.subarray(0, n * width), [Math.min(n, reference.shape[0]), width]);
  return {
    fid: fid(reference, features),
    kid: kid(real, features).mean,
    ...precisionRecall(real, features),
    accuracy: labels.filter((label, i) => label === classes[i]).length / n,
  };
}
