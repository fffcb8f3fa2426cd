import { loadClassifier, styleNetWithEncoder } from '../../models/node/index.js';
import { concat } from '../../tensor/index.js';
import type { Activations } from '../perceptual.js';

/**
 * The network by which images are compared.
 * @param path a safetensors file of torchvision's vgg19 or of pytorch-AdaIN's vgg_normalised (relu1_1 to relu4_1, images of
 * at least 9x9), or the folder of a classifier, whose every layer counts.
 * @throws Error that names the file at fault.
 */
export async function openActivations(path: string): Promise<Activations> {
  if (path.endsWith('.safetensors')) {
    const { encoder } = await styleNetWithEncoder(path);
    return (images) => {
      const scaled = images.add(1).mul(0.5);
      return encoder.features(images.shape[1] === 1 ? concat([scaled, scaled, scaled], 1) : scaled);
    };
  }
  const classifier = await loadClassifier(path);
  return (images) => classifier.activations(images);
}
