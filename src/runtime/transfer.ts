import type { DType, NdArray } from '../array/index.js';
import { type Device, type DeviceValue, Session, toDeviceValue, toHost } from './session.js';

/** What a GPU buffer may hold. */
const bufferTypes: ReadonlySet<DType> = new Set(['float32', 'float16', 'int64', 'int32', 'uint8', 'bool']);

/**
 * Can a session leave such an output where it was computed? onnxruntime hands CUDA's results back in host memory,
 * so of the GPU devices only `webgpu` can.
 */
export const staysOn = (device: Device, dtype: DType): boolean => device === 'webgpu' && bufferTypes.has(dtype);

/** Copies an array into a buffer of the GPU, which the caller has to dispose of. */
export function upload(array: NdArray): Promise<DeviceValue> {
  return copy(toDeviceValue(array), true);
}

/** Copies a buffer of the GPU into host memory. */
export async function download(value: DeviceValue): Promise<NdArray> {
  return toHost(value.location === 'gpu-buffer' ? await copy(value, false) : value);
}

const copiers = new Map<string, Promise<Session>>();

/** A graph of one Identity moves data either way; onnxruntime-node knows no other way to read a buffer. */
async function copy(value: DeviceValue, resident: boolean): Promise<DeviceValue> {
  const { type, dims } = value;
  const key = `${type} ${dims.length} ${resident}`;
  let copier = copiers.get(key);
  if (!copier) {
    const port = (name: string) => ({ name, dtype: type as DType, shape: dims.map((_, i) => `d${i}`) });
    const node = { type: 'Identity', domain: '', inputs: ['x'], outputs: ['y'], attributes: {} };
    const graph = { inputs: [port('x')], outputs: [port('y')], initializers: [], nodes: [node] };
    copier = Session.create(graph, { device: 'webgpu', optimization: 'none', resident: resident ? ['y'] : [] });
    copiers.set(key, copier);
    copier.catch(() => copiers.delete(key));
  }
  return (await (await copier).run({ x: value }, ['y'])).y;
}
