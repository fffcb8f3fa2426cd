import type { NdArray } from '../array/index.js';
import { Tensor } from './tensor.js';

/** A tensor, or lists and records of them. */
export type Tree<T> = T | readonly Tree<T>[] | { readonly [key: string]: Tree<T> };

interface LeafKind<T> {
  readonly name: string;
  is(x: unknown): x is T;
}

export const tensorLeaf: LeafKind<Tensor> = { name: 'a tensor', is: (x) => x instanceof Tensor };
export const nameLeaf: LeafKind<string> = { name: 'a name', is: (x) => typeof x === 'string' };
export const arrayLeaf: LeafKind<NdArray> = {
  name: 'an NdArray',
  is: (x): x is NdArray => typeof x === 'object' && x !== null && 'dtype' in x && 'data' in x,
};

/** @throws TypeError when something else stands in it. */
export function mapTree<T, U>(tree: Tree<T>, leaf: LeafKind<T>, f: (x: T) => U, place = 'the value'): Tree<U> {
  if (leaf.is(tree)) return f(tree);
  if (Array.isArray(tree)) return tree.map((x) => mapTree(x, leaf, f, place));
  if (typeof tree !== 'object' || tree === null || Object.getPrototypeOf(tree) !== Object.prototype)
    throw new TypeError(`compile: ${place} is ${described(tree)}, expected ${leaf.name}, or lists or records of them`);
  return Object.fromEntries(Object.entries(tree).map(([k, x]) => [k, mapTree(x as Tree<T>, leaf, f, place)]));
}

export function flatten<T>(tree: Tree<T>, leaf: LeafKind<T>, place?: string): T[] {
  const leaves: T[] = [];
  mapTree(tree, leaf, (x) => leaves.push(x), place);
  return leaves;
}

/** The same for trees that differ in their arrays only. */
export const structureOf = (tree: unknown): string => JSON.stringify(tree, (_, x) => (arrayLeaf.is(x) ? 0 : x));

function described(x: unknown): string {
  if (x === null || x === undefined) return String(x);
  const name = typeof x === 'object' ? x.constructor?.name : typeof x;
  return name ? `a ${name}` : 'an object';
}
