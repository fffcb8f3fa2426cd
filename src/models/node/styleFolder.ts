import { join } from 'node:path';
import type { NdArray } from '../../array/index.js';
import {
  fileError,
  pathExists,
  readJson,
  readSafetensors,
  writeFolderAtomic,
  writeJson,
  writeSafetensors,
} from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { AdaINNet, adainNetConfig } from '../adainNet.js';
import { configFromJson, configToJson } from '../config.js';
import { decoderState, encoderState } from '../vggNames.js';

const weightsFile = 'model.safetensors';
const vggFile = 'vgg_normalised.safetensors';
const decoderFile = 'decoder.safetensors';

/** Writes config.json and model.safetensors. @param weights default: the net's own. */
export const saveStyleNet = (folder: string, net: AdaINNet, weights?: ReadonlyMap<string, NdArray>): Promise<void> =>
  writeFolderAtomic(folder, async (aside) => {
    const { _diffusers_version: _, ...config } = configToJson(AdaINNet.className, net.config);
    await writeJson(join(aside, 'config.json'), config);
    await writeSafetensors(join(aside, weightsFile), weights ?? (await net.readStateDict()));
  });

/**
 * Opens what {@link saveStyleNet} wrote, a run of train-style (its `net/`), or a folder with pytorch-AdaIN's two files as
 * vgg_normalised.safetensors and decoder.safetensors.
 * @throws Error that names the file at fault.
 */
export async function loadStyleNet(path: string): Promise<AdaINNet> {
  const inRun = join(path, 'net');
  const folder = (await pathExists(join(inRun, 'config.json'))) ? inRun : path;
  if (!(await pathExists(join(folder, 'config.json'))) && (await pathExists(join(folder, decoderFile)))) {
    const { tensors } = await readSafetensors(join(folder, decoderFile));
    const net = await styleNetWithEncoder(join(folder, vggFile));
    return naming(join(folder, decoderFile), () => {
      net.decoder.loadStateDict(decoderState(tensors));
      return net;
    });
  }
  const config = await readJson(join(folder, 'config.json'));
  const { tensors } = await readSafetensors(join(folder, weightsFile));
  return naming(folder, () => {
    const net = new AdaINNet(configFromJson(AdaINNet.className, adainNetConfig, config), new Generator(0));
    net.loadStateDict(tensors);
    return net;
  });
}

/**
 * A net to be trained, with the encoder of a VGG and a fresh decoder, or a run's with the decoder it has.
 * @param path a safetensors file of torchvision's vgg19 or of pytorch-AdaIN's vgg_normalised, the folder of a
 * classifier that `train-classifier --model vgg` wrote, or one of train-style.
 * @throws Error that names the file and what it lacks.
 */
export async function styleNetWithEncoder(path: string, rng = new Generator(0)): Promise<AdaINNet> {
  if (await pathExists(join(path, 'net'))) return loadStyleNet(path);
  const inFolder = join(path, weightsFile);
  const file = (await pathExists(inFolder)) ? inFolder : path;
  const { tensors } = await readSafetensors(file);
  return naming(file, () => {
    const drawn = new AdaINNet({ channels: [1, 1, 1, 1] }, new Generator(0));
    const state = encoderState(tensors, drawn.encoder.stateDict());
    const net = new AdaINNet({ channels: channelsOf(state) }, rng);
    net.encoder.loadStateDict(state);
    return net;
  });
}

const channelsOf = (state: ReadonlyMap<string, NdArray>): [number, number, number, number] => {
  const [a, b, c, d] = [1, 2, 3, 4].map((level) => state.get(`conv${level}_1.weight`)!.shape[0]);
  return [a, b, c, d];
};

function naming<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw fileError('read', path, cause);
  }
}
