import { existsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/** Chromium's software GPU (Debian: chromium and libvulkan1), on which the WebGPU tests run; without a GPU they are skipped. */
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'parity/**/*.test.ts'],
    pool: 'forks', // the native engine keeps threads of its own
    maxWorkers: 2,
    testTimeout: 60_000,
    env: existsSync(swiftShader) ? { VK_DRIVER_FILES: swiftShader } : {},
  },
});
