import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/** One read or write call moves less than 2 GiB. */
const maxCallBytes = 2 ** 30;

const advice: Record<string, string> = {
  ENOSPC: 'the disk is full: free some space, or write elsewhere',
  EDQUOT: 'the disk quota is used up: free some space, or write elsewhere',
  EFBIG: 'the file is larger than the file system allows: write elsewhere',
  EACCES: 'permission denied: choose a folder you may write to',
  EPERM: 'permission denied: choose a folder you may write to',
  EROFS: 'the file system is read-only: write elsewhere',
  EISDIR: 'there is a folder of that name: choose another name',
  ENOTDIR: 'part of the path is a file, not a folder: choose another path',
  EEXIST: 'part of the path is a file, not a folder: choose another path',
  ENOENT: 'no such file or folder: check the path',
  EMFILE: 'too many open files: close some, or raise the limit (ulimit -n)',
};

const codeOf = (error: unknown): string => String((error as { code?: unknown })?.code ?? '');

/** An error that names the path and says what can be done. */
export function fileError(action: 'read' | 'write', path: string, cause: unknown): Error {
  const code = codeOf(cause);
  // Making folders answers so on a read-only file system, too.
  const lost =
    action === 'write' && code === 'ENOENT' && 'its folder cannot be made here: check the path, or write elsewhere';
  const message = lost || (advice[code] ?? (cause instanceof Error ? cause.message : String(cause)));
  return new Error(`cannot ${action} ${path}: ${message}`, { cause });
}

const writing = new Set<string>();

/** `.name.PID-RANDOM.tmp` beside the target: in the same file system, so that the rename is atomic. */
function asideOf(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`);
}

/** Whether a process of this machine has this number. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

/** Removes what processes killed in the middle of writing `path` left beside it. */
async function removeLeftovers(path: string): Promise<void> {
  const prefix = `.${basename(path)}.`;
  for (const name of await readdir(dirname(path))) {
    const pid = name.startsWith(prefix) && /^(\d+)-[0-9a-f]{8}\.tmp$/.exec(name.slice(prefix.length))?.[1];
    const aside = join(dirname(path), name);
    if (pid && !writing.has(aside) && (Number(pid) === process.pid || !isAlive(Number(pid))))
      await rm(aside, { recursive: true, force: true });
  }
}

/** A rename survives a power cut only once its folder is on the disk; some systems cannot sync a folder. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/** Makes a folder and those above it where they are missing. @throws Error that names the path and says what to do. */
export async function makeFolder(path: string): Promise<void> {
  await makeFolders(path).catch((cause) => {
    throw fileError('write', path, cause);
  });
}

/** Node's own recursive mkdir never ends where the system says for ever that there is no such folder, as in /proc. */
async function makeFolders(path: string): Promise<void> {
  const make = () =>
    mkdir(path).catch(async (cause) => {
      if (codeOf(cause) !== 'EEXIST' || !(await stat(path)).isDirectory()) throw cause;
    });
  await make().catch(async (cause) => {
    if (codeOf(cause) !== 'ENOENT' || dirname(path) === path) throw cause;
    await makeFolders(dirname(path));
    await make();
  });
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; )
    done += (await handle.write(bytes, done, Math.min(bytes.byteLength - done, maxCallBytes))).bytesWritten;
}

/**
 * Writes aside, syncs, then renames: a reader sees the old file or the new one, never a part.
 * Missing folders are made; on failure nothing is left behind and an older file stays as it was.
 * @param content the bytes, or consecutive pieces of them.
 * @throws Error that names the path and says what to do (a full disk, no permission ...).
 */
export async function writeFileAtomic(path: string, content: Uint8Array | Iterable<Uint8Array>): Promise<void> {
  const target = resolve(path);
  const aside = asideOf(target);
  writing.add(aside);
  try {
    await makeFolders(dirname(target));
    await removeLeftovers(target);
    const handle = await open(aside, 'wx');
    try {
      for (const piece of content instanceof Uint8Array ? [content] : content) await writeAll(handle, piece);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(aside, target);
    await syncFolder(dirname(target));
  } catch (cause) {
    await rm(aside, { force: true }).catch(() => undefined);
    throw fileError('write', path, cause);
  } finally {
    writing.delete(aside);
  }
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else {
      const handle = await open(path, 'r+');
      await handle.sync().finally(() => handle.close());
    }
  }
  await syncFolder(folder);
}

/** Whether there is a file or folder that can be seen. */
export const pathExists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );
const replacedName = (target: string): string => join(dirname(target), `.${basename(target)}.replaced`);

/** Puts back the folder that a process killed between the two renames of `writeFolderAtomic` had moved away. */
export async function recoverFolder(path: string): Promise<void> {
  const target = resolve(path);
  const replaced = replacedName(target);
  if (!(await pathExists(replaced))) return;
  if (await pathExists(target)) await rm(replaced, { recursive: true, force: true });
  else await rename(replaced, target);
}

/**
 * Writes a whole folder aside, syncs its files, then renames it into place, replacing an older one.
 * Folders cannot be exchanged in one step: readers call {@link recoverFolder} first where an older one may be replaced.
 * @param fill writes the files into the folder it is given.
 * @throws Error that names the path and says what to do; nothing is left behind and an older folder stays as it was.
 */
export async function writeFolderAtomic(path: string, fill: (folder: string) => Promise<void> | void): Promise<void> {
  const target = resolve(path);
  const aside = asideOf(target);
  writing.add(aside);
  try {
    await makeFolders(dirname(target));
    if ((await stat(target).catch(() => undefined))?.isFile()) throw new Error('there is a file of that name');
    await recoverFolder(target);
    await removeLeftovers(target);
    await mkdir(aside);
    await fill(aside);
    await syncTree(aside);
    if (await pathExists(target)) await rename(target, replacedName(target));
    await rename(aside, target);
    await syncFolder(dirname(target));
    await rm(replacedName(target), { recursive: true, force: true });
  } catch (cause) {
    await rm(aside, { recursive: true, force: true }).catch(() => undefined);
    await recoverFolder(target).catch(() => undefined);
    throw fileError('write', path, cause);
  } finally {
    writing.delete(aside);
  }
}

/** An open file whose ranges can be read; `use` gets it and its length, and it is closed afterwards. */
export async function withFile<T>(
  path: string,
  use: (read: (begin: number, end: number) => Promise<Uint8Array>, fileBytes: number) => Promise<T>,
): Promise<T> {
  const handle = await open(path, 'r').catch((cause) => {
    throw fileError('read', path, cause);
  });
  try {
    const status = await handle.stat();
    if (status.isDirectory()) throw new Error('a folder, expected a file');
    return await use(async (begin, end) => {
      const bytes = new Uint8Array(end - begin);
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, done, Math.min(bytes.length - done, maxCallBytes), begin + done);
        if (bytesRead === 0) throw new Error(`the file ends at byte ${begin + done}, expected ${end}`);
        done += bytesRead;
      }
      return bytes;
    }, status.size);
  } catch (cause) {
    throw fileError('read', path, cause);
  } finally {
    await handle.close();
  }
}

/** A whole file, of any size that memory holds. */
export const readBytes = (path: string): Promise<Uint8Array> => withFile(path, (read, fileBytes) => read(0, fileBytes));
