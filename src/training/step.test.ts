import { expect, it } from 'vitest';
import { zeros } from '../array/index.js';
import { variable } from '../tensor/index.js';
import { partsOf } from './step.js';

it('cuts a batch into as many equal parts as its graph takes, or the next fewer that divide it', () => {
  const loss = variable(zeros([12, 100]))
    .square()
    .mean(); // 1,201 numbers
  expect(partsOf(12, loss)).toBe(1);
  expect(partsOf(12, loss, 600)).toBe(3);
  expect(partsOf(12, loss, 10)).toBe(12);
  expect(partsOf(7, loss, 300)).toBe(1);
});
