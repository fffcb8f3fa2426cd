import { Attention, FeedForward, type Module } from '../nn/index.js';

/** What can be perturbed: self-attention (joint attention included), feed-forward, or the transformer block of both. */
export type LayerKind = 'attention' | 'feedForward' | 'block';

/**
 * Which layers of a kind to perturb: by number (that of the transformer block, or of the attention layer where a model
 * has no such blocks; -1 is the last), or by a pattern that is searched for in the layer's checkpoint name
 * (`transformer_blocks.4` is not `transformer_blocks.40`).
 */
export type Layers = number | string | RegExp | readonly (number | string | RegExp)[];

/** The layers of a kind, by checkpoint name; those of one place (a transformer block) together. */
export function perturbable(model: Module, kind: LayerKind): ReadonlyMap<string, Module>[] {
  const modules = model.namedModules();
  const places = new Map<string, Map<string, Module>>();
  for (const [name, layer] of modules) {
    if (!(layer instanceof Attention) || !isSelfAttention(layer)) continue;
    const block = name.slice(0, name.lastIndexOf('.'));
    const parts = [...modules].filter(([path]) => path.startsWith(`${block}.`));
    const networks = parts.filter(([, part]) => part instanceof FeedForward);
    const place = networks.length > 0 ? block : name;
    if (!places.has(place)) places.set(place, new Map());
    const own = places.get(place)!;
    if (kind === 'attention') own.set(name, layer);
    else if (networks.length > 0 && kind === 'block') own.set(block, modules.get(block)!);
    else for (const [path, network] of networks) if (kind === 'feedForward') own.set(path, network);
  }
  return [...places.values()].filter((layers) => layers.size > 0);
}

/**
 * @param layers default: attention of a U-Net's middle block; without one, the last third of the blocks.
 * @throws RangeError when the model has no such layers, or a number or pattern names none of them.
 */
export function chosenLayers(model: Module, kind: LayerKind, layers?: Layers): Module[] {
  const places = perturbable(model, kind);
  const name = model.constructor.name;
  if (places.length === 0) throw new RangeError(`guidance: ${name} has no ${nouns[kind]} to perturb`);
  if (layers === undefined) return places.flatMap(byDefault(places)).map(([, layer]) => layer);
  const choices = Array.isArray(layers) ? (layers as readonly (number | string | RegExp)[]) : [layers as string];
  const chosen = choices.flatMap((choice: number | string | RegExp) => {
    const found = matching(places, choice);
    if (found.length > 0) return found;
    const names = places.flatMap((place) => [...place.keys()]).join(', ');
    throw new RangeError(
      `guidance: no ${nouns[kind]} of ${name} is ${typeof choice === 'number' ? `number ${choice}` : `named like '${choice}'`}; expected ${-places.length}..${places.length - 1} or part of ${names}`,
    );
  });
  return [...new Set(chosen)];
}

const nouns = { attention: 'self-attention', feedForward: 'feed-forward layer', block: 'transformer block' } as const;

type Places = readonly ReadonlyMap<string, Module>[];

function byDefault(places: Places): (place: ReadonlyMap<string, Module>, i: number) => [string, Module][] {
  const middle = (name: string) => /(^|\.)mid_block\./.test(name);
  const hasMiddle = places.some((place) => [...place.keys()].some(middle));
  const first = places.length - Math.ceil(places.length / 3);
  return (place, i) => [...place].filter(([name]) => (hasMiddle ? middle(name) : i >= first));
}

function matching(places: Places, choice: number | string | RegExp): Module[] {
  if (typeof choice === 'number') return [...(places.at(choice)?.values() ?? [])];
  const pattern = typeof choice === 'string' ? new RegExp(`(?:${choice})(?!\\d)`) : choice;
  return places.flatMap((place) => [...place].filter(([name]) => name.search(pattern) >= 0)).map(([, layer]) => layer);
}

/** Queries and keys are of the same tokens. */
function isSelfAttention({ config }: Attention): boolean {
  if (config.addedKvProjDim) return config.contextPreOnly !== undefined;
  return config.crossAttentionDim === undefined;
}
