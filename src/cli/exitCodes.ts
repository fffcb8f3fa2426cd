/** What a finished command tells its caller. */
export const exitCodes = { ok: 0, failure: 1, usage: 2, diverged: 3, interrupted: 130 } as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const exitCodesHelp = `Exit codes:
  0    done
  1    failed (the message says why)
  2    wrong use: an unknown option, or a value that is not allowed
  3    training diverged: the loss is no longer a number
  130  interrupted by Ctrl-C; train has saved a checkpoint first`;

/** The command line asks for something that cannot be: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
