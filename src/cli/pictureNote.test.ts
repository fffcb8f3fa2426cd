import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { expandHome } from '../io/node/index.js';
import { pictureNote, withPaths } from './pictureNote.js';

afterEach(() => vi.unstubAllEnvs());

test('tells no home folder, and leads back to the same files', () => {
  vi.stubEnv('HOME', '/home/anna');
  const here = (name: string) => join(process.cwd(), name);
  const settings = {
    model: '/home/anna/sd15',
    prompt: '/home/anna/sd15',
    image: here('cat.png'),
    mask: '/home/anna/a,b/mask.png',
    control: [`/home/anna/canny=${here('edges.png')}:0.8,from=0.2,guess`, '/home/anna/far.png:2,to=0.5'],
    lora: ['/home/anna/ink.safetensors:0.7', 'owner/name'],
    from: 'fashion-mnist:9',
    steps: 2,
    size: undefined,
  };
  const written = JSON.parse(pictureNote(settings).noisewright) as typeof settings;
  expect(written).toEqual({
    model: '~/sd15',
    prompt: '/home/anna/sd15',
    image: './cat.png',
    mask: '~/a,b/mask.png',
    control: ['~/canny=./edges.png:0.8,from=0.2,guess', '~/far.png:2,to=0.5'],
    lora: ['~/ink.safetensors:0.7', 'owner/name'],
    from: 'fashion-mnist:9',
    steps: 2,
  });
  const read = withPaths(written, expandHome);
  expect(read).toMatchObject({ model: settings.model, mask: settings.mask, image: './cat.png' });
  expect(read.control).toEqual(['/home/anna/canny=./edges.png:0.8,from=0.2,guess', '/home/anna/far.png:2,to=0.5']);
});
