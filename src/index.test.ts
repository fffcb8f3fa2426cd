import { isBuiltin } from 'node:module';
import { join } from 'node:path';
import { build, type Plugin } from 'vite';
import { expect, test } from 'vitest';

test('the core bundles for browsers: nothing of Node, and onnxruntime-web for the engine', async () => {
  const [packages, builtins, engines] = [new Set<string>(), new Set<string>(), new Set<string>()];
  const observer: Plugin = {
    name: 'observer',
    enforce: 'pre',
    async resolveId(source, importer) {
      if (isBuiltin(source)) builtins.add(`${importer} imports ${source}`);
      if (source !== '#onnxruntime') return null;
      const engine = await this.resolve(source, importer, { skipSelf: true });
      engines.add(engine?.id ?? 'nothing');
      return { id: 'onnxruntime-web', external: true };
    },
    moduleParsed({ id }) {
      const [, name] = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id) ?? [];
      if (name) packages.add(name);
    },
  };
  const input = join(import.meta.dirname, 'index.ts');
  await build({
    configFile: false,
    logLevel: 'silent',
    plugins: [observer],
    build: { write: false, minify: false, rollupOptions: { input, preserveEntrySignatures: 'strict' } },
  });
  expect([...builtins]).toEqual([]);
  expect([...packages].sort()).toEqual(['entities', 'fflate', 'pbf', 'zod']);
  expect([...engines]).toEqual([expect.stringMatching(/onnxruntime-web\/dist\/ort\.webgpu\.[\w.]*mjs$/)]);
});
