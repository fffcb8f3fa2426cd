import { type NdArray, sizeOf } from '../../src/array/index.js';
import type { Module } from '../../src/nn/index.js';
import { compile, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

export type Inputs = Readonly<Record<string, Tensor>>;
/** One result, or several under their stored names. */
export type Results = Tensor | Readonly<Record<string, Tensor>>;

/** Runs tensors on all of a case's inputs. */
export async function runOnInputs(reference: ReferenceCase, f: (inputs: Inputs) => Results): Promise<Outputs> {
  const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
  const run = compile((x: Inputs) => named(f(x)));
  const outputs = await run(inputs);
  await run.release();
  return outputs;
}

const named = (results: Results): Readonly<Record<string, Tensor>> =>
  'shape' in results ? { out: results as Tensor } : (results as Readonly<Record<string, Tensor>>);

/** Loads a case's weights into a module: `rename` gives our name of the source's, undefined for what we compute. */
export function loadRenamed(
  module: Module,
  weights: ReadonlyMap<string, NdArray>,
  rename: (name: string) => string | undefined,
): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  const variables = module.namedVariables();
  const state = new Map<string, NdArray>();
  for (const [name, array] of weights) {
    const ours = rename(name);
    if (ours === undefined) continue;
    places.set(name, ours);
    // A convolution of one token is a matrix here.
    const { shape = array.shape } = variables.get(ours) ?? {};
    state.set(ours, sizeOf(shape) === array.data.length ? ({ ...array, shape } as NdArray) : array);
  }
  module.loadStateDict(state);
  return places;
}

/**
 * An adapter for a module: its results, and where the case has weights of a loss, the loss of the first result
 * and the gradients of all the source's parameters.
 */
export const moduleAdapter =
  <M extends Module>(
    create: (reference: ReferenceCase) => M,
    forward: (module: M, inputs: Inputs, reference: ReferenceCase) => Results,
    rename: (name: string) => string | undefined = (name) => name,
  ): Adapter =>
  (reference) => {
    const module = create(reference);
    const places = loadRenamed(module, reference.weights, rename);
    const weight = reference.tensors.has('loss_weight.0') ? [reference.given('loss_weight.0')] : [];
    const inputs = Object.fromEntries(reference.inputNames().map((name) => [name, reference.input(name)]));
    return once(
      (x: Inputs, [w]: readonly Tensor[]) => {
        const results = named(forward(module, x, reference));
        if (!w) return results;
        const loss = Object.values(results)[0].mul(w).sum();
        const parameters = module.namedParameters();
        const trained = [...places].filter(([, ours]) => parameters.has(ours));
        const slopes = gradients(
          loss,
          trained.map(([, ours]) => parameters.get(ours)!),
        );
        return {
          ...results,
          'out.loss': loss,
          ...Object.fromEntries(
            trained.map(([name], i) => [`grad.${name}`, slopes[i].reshape(reference.weights.get(name)!.shape)]),
          ),
        };
      },
      inputs,
      weight,
    );
  };

async function once(
  f: (inputs: Inputs, weight: readonly Tensor[]) => Readonly<Record<string, Tensor>>,
  inputs: Readonly<Record<string, NdArray>>,
  weight: readonly NdArray[],
): Promise<Outputs> {
  const run = compile(f);
  const outputs = await run(inputs, weight);
  await run.release();
  return outputs;
}
