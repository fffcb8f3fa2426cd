import { join } from 'node:path';
import { z } from 'zod';
import { fileError, pathExists, readBytes } from '../../io/node/index.js';
import { listPictures, splitFolder } from './imageFolder.js';
import type { Split } from './split.js';

/** A picture, what it shows in words and, for a ControlNet, a picture that hints at it. */
export interface CaptionedPicture {
  readonly path: string;
  readonly caption: string;
  readonly hint?: string;
}

export interface CaptionFolder {
  readonly pictures: readonly CaptionedPicture[];
  /** What was left out, with the reason. */
  readonly skipped: readonly string[];
}

export interface CaptionFolderOptions {
  readonly split?: Split;
  /** Leaves out pictures without a caption and captions without a picture, instead of failing. */
  readonly skipCorrupt?: boolean;
}

const row = z.looseObject({ file_name: z.string().min(1), text: z.string(), conditioning: z.string().optional() });

/**
 * A folder of pictures with captions in either of the hub's conventions: a `metadata.jsonl` with a line
 * `{"file_name": "a.png", "text": "a cat"}` for each picture (and `conditioning`, a hint's file), or a `.txt` file beside
 * each picture. With a `train` folder inside, that one. Pictures are not opened.
 * @throws Error that names pictures without captions, captions without pictures, and lines that cannot be read.
 */
export async function openCaptionFolder(
  folder: string,
  { split = 'train', skipCorrupt = false }: CaptionFolderOptions = {},
): Promise<CaptionFolder> {
  const place = await splitFolder(folder, split);
  const metadata = join(place, 'metadata.jsonl');
  const { pictures, skipped } = (await pathExists(metadata))
    ? await fromMetadata(place, metadata)
    : await fromTexts(place);
  if (skipped.length > 0 && (!skipCorrupt || pictures.length === 0)) {
    const more = skipped.length > 10 ? `\n  and ${skipped.length - 10} more` : '';
    const list = skipped.slice(0, 10).map((reason) => `\n  ${reason}`);
    throw new Error(
      `${place}: ${skipped.length} pictures cannot be used (--skip-corrupt, or skipCorrupt, leaves them out):${list.join('')}${more}`,
    );
  }
  if (pictures.length === 0) throw new Error(`${place}: no pictures with captions in this folder`);
  return { pictures, skipped };
}

async function fromMetadata(folder: string, path: string): Promise<CaptionFolder> {
  const lines = new TextDecoder().decode(await readBytes(path)).split('\n');
  const pictures: CaptionedPicture[] = [];
  const skipped: string[] = [];
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const { file_name: file, text, conditioning } = parsedRow(path, i + 1, line);
    const files = [file, ...(conditioning === undefined ? [] : [conditioning])];
    const missing = await firstMissing(folder, files);
    if (missing !== undefined) skipped.push(`${path}: line ${i + 1}: no file ${missing}`);
    else if (text.trim() === '') skipped.push(`${path}: line ${i + 1}: no caption for ${file}`);
    else
      pictures.push({
        path: join(folder, file),
        caption: text.trim(),
        ...(conditioning !== undefined && { hint: join(folder, conditioning) }),
      });
  }
  return { pictures, skipped };
}

async function firstMissing(folder: string, files: readonly string[]): Promise<string | undefined> {
  for (const file of files) if (!(await pathExists(join(folder, file)))) return file;
  return undefined;
}

function parsedRow(path: string, number: number, line: string): z.output<typeof row> {
  try {
    return row.parse(JSON.parse(line));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    const expected = '{"file_name": "a.png", "text": "a cat"}';
    throw fileError('read', path, new Error(`line ${number}: ${why}; expected ${expected}`, { cause }));
  }
}

async function fromTexts(folder: string): Promise<CaptionFolder> {
  const pictures: CaptionedPicture[] = [];
  const skipped: string[] = [];
  for (const name of await listPictures(folder)) {
    const path = join(folder, name);
    const text = path.replace(/\.[^.]*$/, '.txt');
    const caption = (await pathExists(text)) ? new TextDecoder().decode(await readBytes(text)).trim() : '';
    if (caption === '') skipped.push(`${path}: no caption: no line for it in metadata.jsonl, and no words in ${text}`);
    else pictures.push({ path, caption });
  }
  return { pictures, skipped };
}
