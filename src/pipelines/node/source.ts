import { stat } from 'node:fs/promises';
import { basename, dirname, extname } from 'node:path';
import { type HubOptions, hubSnapshot, isHubId } from '../../io/node/index.js';

/**
 * The folder of a model: `source` itself, or a snapshot of that model at the Hugging Face hub.
 * @throws Error when it is neither, or the hub's has no weights that can be opened.
 */
export async function modelFolder(source: string, options?: HubOptions): Promise<string> {
  if (await stat(source).catch(() => undefined)) return source;
  if (!isHubId(source)) throw new Error(`${source}: no such folder, and no model's id at the hub (owner/name)`);
  return hubSnapshot(source, (paths) => chosenFiles(source, paths), options);
}

/**
 * Of a model's files those that opening it takes: configs and tokenizers, and of each part the weights in safetensors,
 * in 16 bits where there are no others.
 */
export function chosenFiles(id: string, paths: readonly string[]): string[] {
  const texts = paths.filter(
    (path) => /(^|\/)[\w.-]+\.(json|txt|model)$/.test(path) && !/\.index\.[\w.]*json$/.test(path),
  );
  const folders = new Set(paths.filter((path) => /\.(safetensors|bin)$/.test(path)).map((path) => dirname(path)));
  const weights = [...folders]
    .filter((folder) => folder !== '.' || !paths.includes('model_index.json'))
    .flatMap((folder) => {
      const own = paths.filter((path) => dirname(path) === folder);
      const tensors = own.filter((path) => extname(path) === '.safetensors' && !/non_ema/.test(path));
      const whole = tensors.filter((path) =>
        /^(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors$/.test(basename(path)),
      );
      const half = tensors.filter((path) => /\.fp16(-\d+-of-\d+)?\.safetensors$/.test(basename(path)));
      const chosen = whole.length > 0 ? whole : half;
      if (chosen.length === 0 && !/safety_checker|feature_extractor/.test(folder))
        throw new Error(
          `${id}: ${folder} holds its weights as a pickle (.bin) only, which can run any code when it is opened. Convert it in Python: DiffusionPipeline.from_pretrained("${id}").save_pretrained("folder", safe_serialization=True)`,
        );
      const indices = own.filter((path) => path.endsWith('.safetensors.index.json') || /index\.fp16\.json$/.test(path));
      return [...chosen, ...indices];
    });
  return [...new Set([...texts, ...weights])].filter((path) => !/^(onnx|openvino|flax)/.test(path));
}
