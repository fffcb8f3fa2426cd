let last: Promise<unknown> = Promise.resolve();

/**
 * Runs pieces of engine work one after another. They share variables, whose buffers are replaced and freed between
 * calls, and onnxruntime-web cannot run two sessions at once.
 */
export function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const result = last.then(work);
  last = result.catch(() => {});
  return result;
}
