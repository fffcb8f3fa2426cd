import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder, pathExists, readJson, writeFileAtomic, writeFolderAtomic } from '../../io/node/index.js';
import { packageFolder } from './packages.js';

const emojiList = z.array(
  z.looseObject({ name: z.string(), image: z.string(), category: z.string(), has_img_twitter: z.boolean() }),
);

/** Captions that a model is not shown: it knows their words from others. */
export const heldOutEmoji: readonly string[] = [
  'green heart',
  'purple circle',
  'yellow square',
  'green apple',
  'orange book',
  'grinning cat face with smiling eyes',
  'blue square',
  'brown heart',
];

export interface EmojiFolderOptions {
  /** Where the package's files are; default: where it is installed. */
  readonly source?: string;
}

/**
 * Makes a caption folder out of the npm package emoji-datasource-twitter (Twemoji, CC-BY 4.0): `train/` with a picture and
 * a name for each emoji but flags and parts, `test/` with those of {@link heldOutEmoji}.
 * @returns how many pictures are in either.
 * @throws Error when the package is not installed, that says how to; when the folder is there already.
 */
export async function writeEmojiFolder(
  folder: string,
  { source = packageFolder('emoji-datasource-twitter') }: EmojiFolderOptions = {},
): Promise<{ train: number; test: number }> {
  if (await pathExists(folder)) throw new Error(`${folder} is there already: choose another folder`);
  const all = await readJson(join(source, 'emoji.json'), emojiList);
  const shown = all.filter(
    ({ category, has_img_twitter }) => has_img_twitter && category !== 'Flags' && category !== 'Component',
  );
  const pairs = shown.map(({ name, image }) => ({ image, text: captionOf(name) }));
  const counts = { train: 0, test: 0 };
  await writeFolderAtomic(folder, async (aside) => {
    for (const split of ['train', 'test'] as const) {
      const own = pairs.filter(({ text }) => heldOutEmoji.includes(text) === (split === 'test'));
      counts[split] = own.length;
      await makeFolder(join(aside, split));
      for (const { image } of own)
        await copyFile(join(source, 'img', 'twitter', '64', image), join(aside, split, image));
      const lines = own.map(({ image, text }) => `${JSON.stringify({ file_name: image, text })}\n`);
      await writeFileAtomic(join(aside, split, 'metadata.jsonl'), new TextEncoder().encode(lines.join('')));
    }
  });
  return counts;
}

/** `LARGE GREEN CIRCLE` is `green circle` (sizes are not seen in single pictures), and Unicode's BLACK means filled. */
const captionOf = (name: string): string =>
  name
    .toLowerCase()
    .replace(/^large /, '')
    .replace(/^heavy black heart$/, 'red heart')
    .replace(/^black (?=\w+ suit$)/, '');
