import { exitCodes } from './exitCodes.js';

/**
 * Runs `work` with a signal that the first Ctrl-C (or SIGTERM) fires; the second one ends the process at once.
 * @param onInterrupt is told of the first.
 */
export async function interruptible<T>(
  work: (signal: AbortSignal) => Promise<T>,
  onInterrupt: () => void = () => {},
): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    controller.abort();
    onInterrupt();
  };
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

/**
 * Ends the process when nobody reads what it writes any more: no failure, the reader (head, less) has seen enough.
 * What must not be lost is saved first, as at the first Ctrl-C.
 */
export function endWhenUnread(streams: readonly NodeJS.EventEmitter[], exit: () => void = () => process.exit()): void {
  let unread = false;
  for (const stream of streams)
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (unread) return;
      if (error.code !== 'EPIPE') throw error;
      unread = true;
      if (!process.emit('SIGINT')) exit();
    });
}
