import type { Compiled } from '../tensor/index.js';

type Releasable = Pick<Compiled<readonly [], unknown>, 'release'>;

/** Compiled steps by what they follow from. Kept from one run to the next, a run that differs in numbers only starts at once. */
export class StepGraphs<Graph extends Releasable = Releasable> {
  #graphs: { readonly from: readonly unknown[]; readonly graph: Graph }[] = [];

  /** @param from what the graph follows from: objects count as themselves, texts and numbers by value. */
  get(from: readonly unknown[], make: () => Graph): Graph {
    const known = this.#graphs.find(
      (entry) => entry.from.length === from.length && entry.from.every((value, i) => Object.is(value, from[i])),
    );
    if (known) return known.graph;
    const graph = make();
    this.#graphs.push({ from, graph });
    return graph;
  }

  /** Frees their sessions; they are made anew when they are asked for again. */
  async release(): Promise<void> {
    const graphs = this.#graphs;
    this.#graphs = [];
    for (const { graph } of graphs) await graph.release();
  }
}
