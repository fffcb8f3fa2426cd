import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Pipeline } from './pipeline.js';
import { chosenFiles, modelFolder } from './source.js';

const files: Record<string, Buffer> = {
  'model_index.json': Buffer.from('{"_class_name":"StableDiffusionPipeline"}'),
  'unet/config.json': Buffer.from('{}'),
  'unet/diffusion_pytorch_model.safetensors': Buffer.alloc(5000, 'weights'),
  'unet/diffusion_pytorch_model.fp16.safetensors': Buffer.alloc(10, 'h'),
  'vae/diffusion_pytorch_model.bin': Buffer.alloc(10),
  'vae/diffusion_pytorch_model.safetensors': Buffer.alloc(300, 'vae'),
  'README.md': Buffer.from('#'),
};
const commit = 'a'.repeat(40);
const large = (path: string) => path.endsWith('.safetensors');
const hashOf = (path: string) =>
  large(path)
    ? createHash('sha256').update(files[path]).digest('hex')
    : createHash('sha1').update(`blob ${files[path].length}\0`).update(files[path]).digest('hex');

/** The hub's three answers that are needed, with the faults that a test asks for. */
function hub(asked: string[], fault: { cut?: string; damage?: string } = {}): Server {
  return createServer((request, response) => {
    const { pathname } = new URL(request.url!, 'http://hub');
    const json = (value: unknown) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
    if (pathname.startsWith('/api/models/me/model/revision/'))
      return json({ id: 'me/model', _id: '1', sha: commit, lastModified: '2024-01-01' });
    if (pathname.startsWith('/api/models/me/model/tree/'))
      return json(
        Object.entries(files).map(([path, { length: size }]) => ({
          type: 'file',
          path,
          size,
          oid: large(path) ? 'pointer' : hashOf(path),
          ...(large(path) && { lfs: { oid: hashOf(path), size, pointerSize: 100 } }),
        })),
      );
    const path = pathname.replace(`/me/model/resolve/${commit}/`, '');
    const content = files[path];
    if (!content) return response.writeHead(404).end('{}');
    const begin = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    asked.push(`${path} ${begin}`);
    const sent = Buffer.from(content.subarray(begin));
    if (path === fault.damage) sent[0] ^= 1;
    response.writeHead(begin > 0 ? 206 : 200);
    return response.end(path === fault.cut ? sent.subarray(0, 100) : sent);
  });
}

let cacheDir: string;
let server: Server | undefined;
const asked: string[] = [];
async function start(fault = {}): Promise<{ hubUrl: string; cacheDir: string }> {
  server?.close();
  server = hub(asked, fault);
  await new Promise<void>((done) => server!.listen(0, '127.0.0.1', done));
  return { hubUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, cacheDir };
}

beforeEach(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), 'hub-'));
  asked.length = 0;
});
afterEach(async () => {
  server?.close();
  await rm(cacheDir, { recursive: true });
});

describe('a model at the hub', () => {
  it('is fetched once, in the layout of the standard cache', async () => {
    const options = await start();
    const progress: number[] = [];
    const folder = await modelFolder('me/model', {
      ...options,
      onProgress: (done, total) => progress.push(done / total),
    });
    expect(folder).toBe(join(cacheDir, 'models--me--model', 'snapshots', commit));
    expect(await readFile(join(folder, 'unet/diffusion_pytorch_model.safetensors'))).toEqual(
      files['unet/diffusion_pytorch_model.safetensors'],
    );
    expect((await readdir(join(folder, 'unet'))).sort()).toEqual([
      'config.json',
      'diffusion_pytorch_model.safetensors',
    ]);
    expect(await readFile(join(cacheDir, 'models--me--model/refs/main'), 'utf8')).toBe(commit);
    expect(progress.at(-1)).toBe(1);
    const count = asked.length;
    await modelFolder('me/model', options);
    expect(asked.length).toBe(count);
    server!.close();
    expect(await modelFolder('me/model', { ...options, hubUrl: 'http://127.0.0.1:1' })).toBe(folder);
  });

  it('goes on where a download was cut short', async () => {
    const path = 'unet/diffusion_pytorch_model.safetensors';
    await expect(modelFolder('me/model', await start({ cut: path }))).rejects.toThrow(
      `${path}: 100 of 5000 bytes came; run the same again`,
    );
    const snapshot = join(cacheDir, 'models--me--model', 'snapshots', commit, 'unet');
    expect(await readdir(snapshot)).not.toContain('diffusion_pytorch_model.safetensors');
    const folder = await modelFolder('me/model', await start());
    expect(asked).toContain(`${path} 100`);
    expect(await readFile(join(folder, path))).toEqual(files[path]);
  });

  it('keeps nothing that is damaged', async () => {
    const path = 'vae/diffusion_pytorch_model.safetensors';
    await expect(modelFolder('me/model', await start({ damage: path }))).rejects.toThrow('its size or hash differs');
    expect((await readdir(join(cacheDir, 'models--me--model/blobs'))).some((name) => name.includes(hashOf(path)))).toBe(
      false,
    );
    await modelFolder('me/model', await start());
  });

  it('is what a pipeline is opened from', async () => {
    await expect(Pipeline.fromPretrained('me/model', await start())).rejects.toThrow(
      /snapshots.*model_index.json: it names no unet and no transformer/,
    );
  });

  it('is named when it is not there', async () => {
    const options = await start();
    await expect(modelFolder('you/nothing', options)).rejects.toThrow('you/nothing: the hub has no such model');
    await expect(modelFolder('./nowhere/at/all', options)).rejects.toThrow('no such folder');
    await expect(modelFolder('me/model', { cacheDir, hubUrl: 'http://127.0.0.1:1' })).rejects.toThrow(
      'the hub cannot be reached',
    );
  });
});

describe('the chosen files', () => {
  it('are safetensors, in 16 bits only where there are no others, and never pickles', () => {
    expect(
      chosenFiles('me/model', [
        'model_index.json',
        'model.ckpt',
        'v1.safetensors',
        'unet/diffusion_pytorch_model.fp16.safetensors',
        'unet/diffusion_pytorch_model.bin',
        'unet/config.json',
        'tokenizer/merges.txt',
      ]),
    ).toEqual([
      'model_index.json',
      'unet/config.json',
      'tokenizer/merges.txt',
      'unet/diffusion_pytorch_model.fp16.safetensors',
    ]);
    expect(() => chosenFiles('me/model', ['model_index.json', 'unet/diffusion_pytorch_model.bin'])).toThrow(
      'me/model: unet holds its weights as a pickle (.bin) only',
    );
    const parts = [
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
    ].map((name) => `text_encoder/${name}`);
    expect(chosenFiles('me/model', ['model_index.json', ...parts])).toEqual(['model_index.json', ...parts]);
  });
});
