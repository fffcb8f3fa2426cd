import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { Generator } from '../../random/index.js';
import { readJson } from './json.js';

it('gives what the schema says or an error that names the file, however a configuration is damaged', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const path = join(folder, 'config.json');
  const schema = z.strictObject({
    layers: z.int().min(1).max(64),
    name: z.enum(['a', 'b']),
    rates: z.array(z.number()),
  });
  const good = new TextEncoder().encode('{"layers": 12, "name": "b", "rates": [0.5, 1e-3]}');
  const rng = new Generator(1);
  let rejected = 0;
  for (let round = 0; round < 400; round++) {
    const bytes = good.slice(0, rng.random() % 3 === 0 ? rng.random() % good.length : good.length);
    for (let times = rng.random() % 3; times > 0 && bytes.length > 0; times--)
      bytes[rng.random() % bytes.length] = '0123456789[]{}",:.-etrufalsn'.charCodeAt(rng.random() % 28);
    await writeFile(path, bytes);
    await readJson(path, schema).then(
      (config) => expect(schema.safeParse(config).success).toBe(true),
      (error: Error) => {
        rejected++;
        expect(error.message).toContain(`cannot read ${path}: `);
      },
    );
  }
  expect(rejected).toBeGreaterThan(200);
  await rm(folder, { recursive: true });
});
