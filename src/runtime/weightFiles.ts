import type { OnnxGraph } from './onnx.js';

/**
 * Places weights that lie in files for the engine, which looks below one folder: the deepest that holds all of them.
 * @throws Error when a file is no longer the one that was opened.
 */
export function fromFiles(graph: OnnxGraph): { graph: OnnxGraph; folder?: string } {
  const ranges = graph.initializers.flatMap(({ stored }) => stored ?? []);
  if (ranges.length === 0) return { graph };
  const files = new Map(ranges.map((range) => [range.path, range]));
  for (const range of files.values()) range.check();
  const folder = commonFolder([...files.keys()]);
  const initializers = graph.initializers.map((initializer) => {
    const { stored } = initializer;
    // The engine looks for all external weights in files, or for all in memory: what is not in a file goes into the model.
    if (!stored) return { ...initializer, external: false };
    return { ...initializer, stored: { ...stored, location: stored.path.slice(folder.length) } };
  });
  return { graph: { ...graph, initializers }, folder };
}

/** With its closing slash. */
function commonFolder(paths: readonly string[]): string {
  const parts = paths.map((path) => path.split('/').slice(0, -1));
  const differs = parts[0].findIndex((part, i) => parts.some((other) => other[i] !== part));
  return `${parts[0].slice(0, differs < 0 ? undefined : differs).join('/')}/`;
}
