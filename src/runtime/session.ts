import * as ort from '#onnxruntime';
import { type NdArray, ndarray, toBytes } from '../array/index.js';
import { encodeModel, type OnnxGraph } from './onnx.js';
import { fromFiles } from './weightFiles.js';

/** Where a compiled function runs. `cuda` needs onnxruntime's CUDA libraries, which its own install step fetches. */
export type Device = 'cpu' | 'webgpu' | 'cuda';

/** How onnxruntime says that a device is not there, and what to do about it. */
const absence: Readonly<Partial<Record<Device, readonly [signs: RegExp, advice: string]>>> = {
  webgpu: [
    /adapter|backend not found|navigator\.gpu/i,
    'no GPU was found. Node needs a graphics driver (on Linux Vulkan: libvulkan1 and the driver of the card); a browser must have WebGPU switched on',
  ],
  cuda: [
    /load shared library|backend not found|libonnxruntime_providers/i,
    "onnxruntime's CUDA libraries are not there. On Linux x64 with CUDA 12 and cuDNN 9, install them with: ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node",
  ],
};

export interface SessionOptions {
  readonly device: Device;
  /** Threads inside one operation; default: onnxruntime's choice (one per physical core). */
  readonly threads?: number;
  /** Busy-waiting threads answer faster but burn the core; default true. */
  readonly spinning?: boolean;
  /** 'none' runs the nodes as they are; 'all' lets onnxruntime fuse and re-lay out (frozen weights). */
  readonly optimization: 'none' | 'all';
  /** Names of outputs that stay on the device; only `webgpu` can. */
  readonly resident?: readonly string[];
}

/** A value on its way into or out of a session: host memory, or a buffer of the device. */
export type DeviceValue = ort.Tensor;

export function toDeviceValue(array: NdArray): DeviceValue {
  const { dtype, data, shape } = array;
  if (dtype === 'bfloat16') throw new TypeError('onnxruntime takes no bfloat16 input: convert it with toFloat32 first');
  return new ort.Tensor(dtype, data as never, shape as number[]);
}

/** @throws Error when the value is in a buffer of the GPU. */
export function toHost(value: DeviceValue): NdArray {
  const { data, dims, type } = value;
  if (type !== 'float16') return ndarray(data as Float32Array<ArrayBuffer>, dims, type as 'float32');
  // Where Float16Array exists, onnxruntime uses it; the host array holds the bits.
  const { buffer, byteOffset, length } = data as Uint16Array<ArrayBuffer>;
  return ndarray(new Uint16Array(buffer, byteOffset, length), dims, 'float16');
}

export class Session {
  private constructor(
    private readonly session: ort.InferenceSession,
    readonly nodeCount: number,
    readonly modelBytes: number,
  ) {}

  /** @throws Error when the device's provider is not installed, or the graph is refused. */
  static async create(request: OnnxGraph, options: SessionOptions): Promise<Session> {
    const { graph, folder } = fromFiles(request);
    const bytes = encodeModel(graph);
    // In browsers all sessions share one pool, made with the first; it needs a page isolated by COOP and COEP headers.
    if (options.threads !== undefined) ort.env.wasm.numThreads = options.threads;
    const external = graph.initializers.filter((initializer) => initializer.external && !initializer.stored);
    const creation = ort.InferenceSession.create(bytes, {
      executionProviders: [options.device],
      graphOptimizationLevel: options.optimization === 'all' ? 'all' : 'disabled',
      executionMode: 'sequential',
      // The pattern would be a second block beside what the first run's arena keeps: twice the memory, no time.
      enableMemPattern: false,
      logSeverityLevel: 3,
      externalData: external.map(({ name, array }) => ({ path: name, data: toBytes(array) })),
      // Denormals, which a saturated softmax is full of, would slow products down tenfold.
      // Threads stop spinning when a run ends, or they would steal the cores from the next session.
      extra: {
        // Four times as long on the CPU as the sum and the norm that it takes the place of.
        ...(options.device === 'cpu' && { optimization: { disable_specified_optimizers: 'SkipLayerNormFusion' } }),
        session: {
          force_spinning_stop: '1',
          set_denormal_as_zero: '1',
          intra_op: { allow_spinning: options.spinning === false ? '0' : '1' },
          ...(folder !== undefined && { model_external_initializers_file_folder_path: folder }),
        },
      },
      ...(options.threads !== undefined && { intraOpNumThreads: options.threads }),
      ...(options.resident?.length && {
        preferredOutputLocation: Object.fromEntries(options.resident.map((name) => [name, 'gpu-buffer' as const])),
      }),
    });
    const session = await creation.catch((cause: Error) => {
      const [signs, advice] = absence[options.device] ?? [];
      throw signs?.test(cause.message) ? new Error(`device ${options.device}: ${advice}`, { cause }) : cause;
    });
    return new Session(session, graph.nodes.length, bytes.length);
  }

  run(feeds: Record<string, DeviceValue>, outputs: readonly string[]): Promise<Record<string, DeviceValue>> {
    return this.session.run(feeds, outputs as string[]) as Promise<Record<string, DeviceValue>>;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** Why nothing runs on this device here, and what to do about it; undefined when it does run. */
export async function deviceProblem(device: Device): Promise<string | undefined> {
  const value = (name: string) => ({ name, dtype: 'float32' as const, shape: [1] });
  const node = { type: 'Neg', domain: '', inputs: ['x'], outputs: ['y'], attributes: {} };
  const graph = { inputs: [value('x')], outputs: [value('y')], initializers: [], nodes: [node] };
  try {
    const session = await Session.create(graph, { device, optimization: 'none' });
    await session.run({ x: toDeviceValue(ndarray([1])) }, ['y']);
    await session.release();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
