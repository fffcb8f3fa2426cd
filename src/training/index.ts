export * from './config.js';
export * from './ema.js';
export * from './objective.js';
export * from './optimizer.js';
export * from './samplerConfig.js';
export * from './schedules.js';
export * from './session.js';
export * from './step.js';
