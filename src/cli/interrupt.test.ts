import { EventEmitter } from 'node:events';
import { expect, test, vi } from 'vitest';
import { endWhenUnread, interruptible } from './interrupt.js';

const lost = (code: string) => Object.assign(new Error(code), { code });

test('output that nobody reads ends the process, or first what must not be lost', async () => {
  const [stream, exit] = [new EventEmitter(), vi.fn()];
  endWhenUnread([stream], exit);
  const aborted = await interruptible(async (signal) => {
    stream.emit('error', lost('EPIPE'));
    stream.emit('error', lost('ERR_STREAM_DESTROYED')); // what is written while saving is no second Ctrl-C
    return signal.aborted;
  });
  expect(aborted).toBe(true);
  expect(exit).not.toHaveBeenCalled();

  const other = new EventEmitter();
  endWhenUnread([other], exit);
  other.emit('error', lost('EPIPE'));
  expect(exit).toHaveBeenCalledOnce();
  const broken = new EventEmitter();
  endWhenUnread([broken], exit);
  expect(() => broken.emit('error', lost('EIO'))).toThrow('EIO');
});
