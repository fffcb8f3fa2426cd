import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, open, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import type { ListFileEntry } from '@huggingface/hub';
import { fileError, makeFolder, pathExists, writeFileAtomic } from './files.js';

export interface HubOptions {
  /** Branch, tag or commit; default main. */
  readonly revision?: string;
  /** Default: HF_ENDPOINT, or https://huggingface.co. */
  readonly hubUrl?: string;
  /** Default: the hub's own (HF_HUB_CACHE, HF_HOME ...), which Python's libraries share. */
  readonly cacheDir?: string;
  /** Default: HF_TOKEN. */
  readonly accessToken?: string;
  readonly signal?: AbortSignal;
  /** Bytes that are there, of all that are wanted. */
  readonly onProgress?: (done: number, total: number, path: string) => void;
}

/** What a model at the hub is called: `owner/name`. */
export const isHubId = (text: string): boolean => /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(text);

/**
 * Fetches files of a model at the Hugging Face hub into its standard cache, and returns the folder that holds them.
 * A file that is there is not fetched again, one that was cut short is completed; sizes and hashes are checked before a
 * file takes its place. Without a network, what the cache holds is used.
 * @param choose the wanted paths, out of all.
 * @throws Error that names the model or file: unknown, gated, cut short, damaged.
 */
export async function hubSnapshot(
  id: string,
  choose: (paths: readonly string[]) => readonly string[],
  options: HubOptions = {},
): Promise<string> {
  const hub = await import('@huggingface/hub');
  const { revision = 'main', hubUrl = process.env.HF_ENDPOINT ?? hub.HUB_URL, signal, onProgress } = options;
  const { accessToken = process.env.HF_TOKEN, cacheDir = hub.getHFHubCachePath() } = options;
  const storage = join(cacheDir, hub.getRepoFolderName({ type: 'model', name: id }));
  const request = { hubUrl, ...(accessToken && { accessToken }) };
  let commit: string;
  const files = new Map<string, ListFileEntry>();
  try {
    const info = await hub.modelInfo({ ...request, name: id, revision, additionalFields: ['sha'] });
    commit = info.sha;
    const repo = { type: 'model' as const, name: id };
    for await (const file of hub.listFiles({ ...request, repo, revision: commit, recursive: true }))
      if (file.type === 'file') files.set(file.path, file);
  } catch (cause) {
    const cached = await cachedSnapshot(storage, revision);
    if (cached && !('statusCode' in (cause as object))) return cached;
    throw new Error(`${id}: ${hubProblem(cause)}`, { cause });
  }

  const snapshot = join(storage, 'snapshots', commit);
  const wanted = choose([...files.keys()]).map((path) => files.get(path)!);
  const total = wanted.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  for (const file of wanted) {
    const blob = join(storage, 'blobs', file.lfs?.oid ?? file.oid ?? `${commit}-${file.path.replaceAll('/', '-')}`);
    const url = `${hubUrl}/${id}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`;
    const headers: Record<string, string> = accessToken ? { Authorization: `Bearer ${accessToken}` } : {};
    if (!(await sizeOf(blob)))
      await fetchBlob({
        url,
        headers,
        blob,
        file,
        signal,
        onBytes: (bytes) => onProgress?.(done + bytes, total, file.path),
      });
    await link(blob, join(snapshot, file.path));
    done += file.size;
    onProgress?.(done, total, file.path);
  }
  await writeFileAtomic(join(await made(join(storage, 'refs')), revision), new TextEncoder().encode(commit));
  return snapshot;
}

async function cachedSnapshot(storage: string, revision: string): Promise<string | undefined> {
  const commit = await readFile(join(storage, 'refs', revision), 'utf8').catch(() => revision);
  const snapshot = join(storage, 'snapshots', commit.trim());
  return (await pathExists(snapshot)) ? snapshot : undefined;
}

function hubProblem(cause: unknown): string {
  const status = (cause as { statusCode?: number }).statusCode;
  if (status === 401 || status === 403)
    return 'the hub does not let us in: accept its licence there if it has one, and set HF_TOKEN to your access token';
  if (status === 404) return 'the hub has no such model or revision, and there is no such folder';
  return `there is no such folder, the cache does not hold it, and the hub cannot be reached (${(cause as Error).message})`;
}

interface BlobRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly blob: string;
  readonly file: ListFileEntry;
  readonly signal?: AbortSignal;
  onBytes(count: number): void;
}

/** Fetches what is missing of a file, checks it, and puts it into its place. */
async function fetchBlob({ url, headers, blob, file, signal, onBytes }: BlobRequest): Promise<void> {
  const incomplete = `${blob}.incomplete`;
  await made(dirname(blob));
  let begin = (await sizeOf(incomplete)) ?? 0;
  if (begin < file.size) {
    const response = await fetch(url, {
      headers: { ...headers, ...(begin > 0 && { Range: `bytes=${begin}-` }) },
      signal,
    });
    if (!response.ok || !response.body)
      throw new Error(`cannot fetch ${file.path}: the hub answers ${response.status}`);
    if (response.status !== 206) begin = 0;
    const handle = await open(incomplete, begin > 0 ? 'a' : 'w').catch((cause) => {
      throw fileError('write', incomplete, cause);
    });
    try {
      for await (const chunk of response.body) {
        await handle.appendFile(chunk);
        begin += chunk.length;
        onBytes(begin);
      }
      await handle.sync();
    } catch (cause) {
      if (signal?.aborted) throw cause;
      throw fileError(
        'write',
        incomplete,
        new Error(`${(cause as Error).message}; run the same again to go on`, { cause }),
      );
    } finally {
      await handle.close();
    }
  }
  if (begin < file.size)
    throw new Error(`${file.path}: ${begin} of ${file.size} bytes came; run the same again to fetch the rest`);
  if (begin === file.size && (await isIntact(incomplete, file))) return rename(incomplete, blob);
  await rm(incomplete);
  throw new Error(`${file.path}: what came is not what the hub has (its size or hash differs): run the same again`);
}

/** Large files are known by their SHA-256, small ones by git's hash. */
async function isIntact(path: string, { lfs, oid, size }: ListFileEntry): Promise<boolean> {
  if (!lfs && !oid) return true;
  const hash: Hash = lfs ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex') === (lfs?.oid ?? oid);
}

/** A snapshot's file is a link to its blob, where links can be made. */
async function link(blob: string, path: string): Promise<void> {
  if (await sizeOf(path)) return;
  await made(dirname(path));
  await rm(path, { force: true });
  await symlink(relative(dirname(path), blob), path).catch(() => copyFile(blob, path));
}

const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    ({ size }) => size,
    () => undefined,
  );

async function made(folder: string): Promise<string> {
  await makeFolder(folder);
  return folder;
}
