import { z } from 'zod';
import type { NdArray } from '../array/index.js';
import { pathExists, readSafetensors, writeSafetensors } from '../io/node/index.js';
import type { ImageQuality } from '../training/index.js';

/** What came out at one point of a sweep. */
export interface SweepResult {
  readonly quality: ImageQuality;
  /** Some of the pictures, [n, C, H, W] in [-1, 1]. */
  readonly pictures: NdArray<'float32'>;
}

const quality = z.object({
  fid: z.number(),
  kid: z.number(),
  precision: z.number(),
  recall: z.number(),
  accuracy: z.number(),
});

/**
 * The results of a sweep in a safetensors file, written anew after each point: a sweep that was stopped goes on from
 * there, one that asks for more points does the new ones only. Results of other settings are left out.
 */
export class SweepStore {
  private constructor(
    readonly path: string,
    private readonly settings: string,
    private readonly results: Map<string, SweepResult>,
  ) {}

  /** @param settings all that a result depends on beside its point. @throws Error for a file that is no such store. */
  static async open(path: string, settings: string): Promise<SweepStore> {
    const results = new Map<string, SweepResult>();
    if (await pathExists(path)) {
      const { tensors, metadata = {} } = await readSafetensors(path);
      if (metadata.settings === settings)
        for (const [key, pictures] of tensors)
          results.set(key, {
            quality: quality.parse(JSON.parse(metadata[key])),
            pictures: pictures as NdArray<'float32'>,
          });
    }
    return new SweepStore(path, settings, results);
  }

  get(key: string): SweepResult | undefined {
    return this.results.get(key);
  }

  async put(key: string, result: SweepResult): Promise<void> {
    this.results.set(key, result);
    const all = [...this.results];
    await writeSafetensors(this.path, Object.fromEntries(all.map(([name, { pictures }]) => [name, pictures])), {
      settings: this.settings,
      ...Object.fromEntries(all.map(([name, { quality }]) => [name, JSON.stringify(quality)])),
    });
  }
}
