export { type FeatureStatistics, featureStatistics, fid, frechetDistance } from './fid.js';
export { type KidOptions, kid } from './kid.js';
export { precisionRecall } from './precisionRecall.js';
