import { expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { inTurn, State, staysOn } from './index.js';

test('a state is fed as it is, until it is replaced', async () => {
  const state = new State(ndarray([1, 2]));
  const fed = await state.on('cpu');
  expect(fed.data).toBe(state.host?.data);
  expect(await state.on('cpu')).toBe(fed);
  expect(await state.on('cuda')).toBe(fed);
  state.put(ndarray([3, 4]));
  expect([...((await state.on('cpu')).data as Float32Array)]).toEqual([3, 4]);
  expect(await state.read()).toBe(state.host);
});

test('only webgpu keeps values, of the types that a buffer holds', () => {
  expect(staysOn('webgpu', 'float32')).toBe(true);
  expect(staysOn('webgpu', 'float64')).toBe(false);
  expect(staysOn('cuda', 'float32')).toBe(false);
});

test('work is done one piece after another, and goes on after a failure', async () => {
  const log: string[] = [];
  const piece = (name: string, fails = false) =>
    inTurn(async () => {
      log.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 1));
      log.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    });
  const [a, b, c] = await Promise.allSettled([piece('a'), piece('b', true), piece('c')]);
  expect([a.status, b.status, c.status]).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
});
