export * from './ema.js';
export * from './schedules.js';
