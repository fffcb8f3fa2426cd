import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'parity/**/*.test.ts'],
    pool: 'forks', // the native engine keeps threads of its own
    maxWorkers: 2,
    testTimeout: 60_000,
  },
});
