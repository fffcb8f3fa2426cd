import { z } from 'zod';
import { timestepDensities } from '../diffusion/index.js';
import { dpmSolverMultistep, flowMatchEuler, flowMatchHeun, type Sampler, unipc } from '../samplers/index.js';
import { learningFields } from '../training/index.js';

export const pairSamplers = ['flow-euler', 'flow-heun', 'dpmpp-2m', 'unipc'] as const;
export type PairSampler = (typeof pairSamplers)[number];

/** A sampler that solves the ODE of a rectified flow. */
export function pairSampler(name: PairSampler): Sampler {
  const native = { predictionType: 'flow_prediction', useFlowSigmas: true } as const;
  switch (name) {
    case 'flow-euler':
      return flowMatchEuler() as Sampler;
    case 'flow-heun':
      return flowMatchHeun() as Sampler;
    case 'dpmpp-2m':
      return dpmSolverMultistep(native) as Sampler;
    case 'unipc':
      return unipc(native) as Sampler;
  }
}

/**
 * Euler's method along a rectified flow in even steps from noise to sigma 0, as a solver of first order: with n steps,
 * `flowMatchEuler` takes n - 1 and one from sigma 0.001, as diffusers' does, which leaves few steps one short.
 */
export const evenEuler = (): Sampler =>
  dpmSolverMultistep({ predictionType: 'flow_prediction', useFlowSigmas: true, solverOrder: 1 }) as Sampler;

/** Everything that determines a reflow: its run.json, and what `noisewright reflow` takes. */
export const reflowTraining = z.strictObject({
  kind: z.literal('reflow').default('reflow'),
  /** The run whose flow is straightened. */
  teacher: z.string(),
  /** Of the teacher's folder, which must not change while a run goes on. */
  fingerprint: z.string().optional(),
  /** What the teacher was trained on, by which the result can be judged. */
  data: z.string().optional(),
  size: z.number().int().positive().optional(),
  /** How many pairs of noise and sample the teacher makes. */
  pairs: z.number().int().positive().default(10_000),
  /** Steps of the solver for each pair. */
  pairSteps: z.number().int().positive().default(10),
  pairSampler: z.enum(pairSamplers).default('unipc'),
  /** Scale of classifier-free guidance that the pairs are made with; the result then needs none. */
  pairGuidance: z.number().min(0).default(1),
  /** Share of pairs without a class, so that the result can be guided. */
  conditionDropout: z.number().min(0).max(1).default(0),
  ...learningFields,
  steps: z.number().int().positive().default(1000),
  learningRate: z.number().positive().default(3e-4),
  timestepDensity: z.enum(timestepDensities).default('u_shaped'),
});
export type ReflowTraining = z.output<typeof reflowTraining>;
export type ReflowTrainingOptions = z.input<typeof reflowTraining>;
