import type { NdArray } from '../src/array/index.js';
import type { ReferenceCase } from './case.js';

/** Our outputs, under the names of the stored tensors. */
export type Outputs = Readonly<Record<string, NdArray>>;

/** Runs our implementation on a case's inputs, driven by its case.json and config.json, never by its name. */
export type Adapter = (reference: ReferenceCase) => Outputs | Promise<Outputs>;

export interface AdapterModule {
  /** By class, pipeline or symbol, as the cases name them. */
  readonly adapters: Readonly<Record<string, Adapter>>;
}
