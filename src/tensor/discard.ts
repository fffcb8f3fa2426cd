let closed: MessagePort | undefined;

/**
 * Frees the memory of arrays at once. Left to the garbage collector, or to `structuredClone`, whose copies are left to it,
 * gradients of a few steps would make it walk the whole heap, beside the next step and on the same cores.
 */
export function discard(buffers: readonly ArrayBufferLike[]): void {
  if (buffers.length === 0) return;
  if (!closed) {
    closed = new MessageChannel().port1;
    closed.close();
  }
  // What is transferred to a closed port arrives nowhere.
  closed.postMessage(undefined, [...new Set(buffers)] as ArrayBuffer[]);
}
