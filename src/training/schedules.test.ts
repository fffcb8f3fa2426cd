import { describe, expect, it } from 'vitest';
import { type ScheduleName, type ScheduleOptions, schedule } from './schedules.js';

const at = (name: ScheduleName, options: ScheduleOptions, steps: number[]): number[] =>
  steps.map(schedule(name, options));

const close = (actual: number[], expected: number[]): void => {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((x, i) => {
    expect(actual[i]).toBeCloseTo(x, 12);
  });
};

describe('schedule', () => {
  const warmed = { warmupSteps: 10, totalSteps: 110 };

  it.each<[ScheduleName, ScheduleOptions, number[], number[]]>([
    ['constant', { warmupSteps: 10 }, [0, 5, 1000], [1, 1, 1]],
    ['constant_with_warmup', { warmupSteps: 10 }, [0, 5, 10, 11], [0, 0.5, 1, 1]],
    ['constant_with_warmup', {}, [0, 1], [1, 1]],
    ['linear', warmed, [0, 5, 10, 60, 110, 120], [0, 0.5, 1, 0.5, 0, 0]],
    ['cosine', warmed, [5, 10, 60, 110, 160], [0.5, 1, 0.5, 0, 0.5]],
    ['cosine', { totalSteps: 100, cycles: 1 }, [0, 25, 50, 100], [1, 0.5, 0, 1]],
    ['cosine_with_restarts', { ...warmed, cycles: 2 }, [10, 35, 60, 85, 110, 111], [1, 0.5, 1, 0.5, 0, 0]],
    ['piecewise_constant', { stepRules: '0.1:20,1:10,0.005' }, [0, 9, 10, 19, 20, 99], [1, 1, 0.1, 0.1, 0.005, 0.005]],
    ['piecewise_constant', { stepRules: '0.5' }, [0, 7], [0.5, 0.5]],
  ])('%s %o', (name, options, steps, expected) => {
    close(at(name, options, steps), expected);
  });

  it('polynomial ends at a learning rate and stays there', () => {
    const options = { ...warmed, power: 2, learningRate: 1e-3, endLearningRate: 1e-4 };
    close(at('polynomial', options, [5, 10, 60, 110, 200]), [0.5, 1, 0.9 * 0.25 + 0.1, 0.1, 0.1]);
  });

  it('leaves nothing to decay after a warmup as long as the training, or longer', () => {
    for (const totalSteps of [5, 10]) {
      const options = { warmupSteps: 10, totalSteps, learningRate: 1e-3, endLearningRate: 1e-4 };
      close(at('linear', options, [5, 9, 10, 11]), [0.5, 0.9, 0, 0]);
      close(at('polynomial', options, [5, 9, 10, 11]), [0.5, 0.9, 0.1, 0.1]);
    }
  });

  it('names what is missing or wrong', () => {
    expect(() => schedule('linear', {})).toThrow('schedule linear: totalSteps undefined');
    expect(() => schedule('polynomial', { totalSteps: 10 })).toThrow('schedule polynomial: learningRate undefined');
    expect(() => schedule('polynomial', { totalSteps: 10, learningRate: 1e-8 })).toThrow('endLearningRate 1e-7');
    expect(() => schedule('constant_with_warmup', { warmupSteps: -1 })).toThrow('warmupSteps -1');
    expect(() => schedule('piecewise_constant', { stepRules: '1:x,2' })).toThrow("stepRules '1:x,2'");
    expect(() => schedule('piecewise_constant')).toThrow("stepRules ''");
    expect(() => schedule('step' as ScheduleName)).toThrow("schedule: 'step', expected one of constant");
  });
});
