import { expect, test } from 'vitest';
import { numpyLog } from './numpyLog.js';

test('the logarithm of numpy, to the last bit', () => {
  // x, np.log(np.float32(x)); the first three are not the nearest float32 numbers.
  const known: [number, number][] = [
    [24.553552627563477, 3.2008566856384277],
    [0.01776927150785923, -4.030284881591797],
    [0.16111910343170166, -1.8256113529205322],
    [1, 0],
    [2, 0.6931471824645996],
    [0.5, -0.6931471824645996],
    [0.10000000149011612, -2.3025851249694824],
    [157.40728759765625, 5.058836460113525],
    [20291, 9.917932510375977],
  ];
  for (const [x, y] of known) expect(numpyLog(Math.fround(x))).toBe(Math.fround(y));
  for (let x = 1e-4; x < 1e5; x *= 1.37)
    expect(Math.abs(numpyLog(Math.fround(x)) - Math.log(Math.fround(x)))).toBeLessThan(2e-6);
});
