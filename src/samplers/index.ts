export { ddim } from './ddim.js';
export { ddimInverse } from './ddimInverse.js';
export { ddpm } from './ddpm.js';
export { deis } from './deis.js';
export { dpmSolverMultistep } from './dpmSolverMultistep.js';
export { dpmSolverSinglestep } from './dpmSolverSinglestep.js';
export { edmDpmSolverMultistep, edmEuler } from './edm.js';
export { euler } from './euler.js';
export { eulerAncestral } from './eulerAncestral.js';
export { flowMatchEuler } from './flowMatchEuler.js';
export { flowMatchHeun } from './flowMatchHeun.js';
export { heun } from './heun.js';
export { kdpm2, kdpm2Ancestral } from './kdpm2.js';
export { lcm } from './lcm.js';
export type { Linear } from './linear.js';
export { lms } from './lms.js';
export type { Marginal } from './marginal.js';
export {
  type AdaptiveMethod,
  type FixedMethod,
  type Norm,
  type OdeFunction,
  type OdeMethod,
  type OdeOptions,
  type OdeStep,
  odeint,
  odeMethods,
  partsNorm,
  rmsNorm,
  type SolveIvpOptions,
  solveIvp,
} from './ode.js';
export {
  type AdjointGradients,
  odeintAdjoint,
  type VectorJacobian,
  type VectorJacobianFunction,
} from './odeAdjoint.js';
export { odeintTraced, type TracedOdeOptions } from './odeTraced.js';
export {
  type Clipping,
  coefficients,
  type LearnedVariance,
  predictionPerScore,
  type SamplerCall,
  type SamplerPlan,
  type StepLayout,
  type Term,
  usesNoise,
} from './plan.js';
export { pndm } from './pndm.js';
export {
  type Conditioning,
  conditioning,
  predictorCorrector,
  predictorCorrectorFor,
  sdeFields,
  sdeOf,
} from './predictorCorrector.js';
export {
  bitsPerDimension,
  type FlowOptions,
  type FlowResult,
  hutchinsonProbe,
  type Likelihood,
  logLikelihood,
  probabilityFlow,
  type ScoreDivergenceFunction,
  type ScoreFunction,
  scoreDivergence,
} from './probabilityFlow.js';
export { samplerFromConfig, samplers } from './registry.js';
export type { PlanOptions, Sampler, SamplerFactory } from './sampler.js';
export { scoreSdeVe, scoreSdeVp } from './scoreSde.js';
export { applyStep, coefficientsOf, initialState, type StepInputs, type StepResult, scaleInput } from './step.js';
export { tcd } from './tcd.js';
export { unipc } from './unipc.js';
