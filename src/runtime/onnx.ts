import { PbfWriter as Pbf } from 'pbf';
import { bytesPerElement, type DType, type FileRange, type NdArray, sizeOf, toBytes } from '../array/index.js';

/** An ONNX attribute, tagged by its kind because 1 and 1.0 are different attributes. */
export type Attribute = { i: number } | { f: number } | { s: string } | { ints: readonly number[] } | { g: OnnxGraph };
export type Attributes = Readonly<Record<string, Attribute>>;

export interface OnnxNode {
  readonly type: string;
  readonly domain: string;
  /** Names of values; '' leaves an optional input or output out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Attributes;
}

export interface OnnxValue {
  readonly name: string;
  readonly dtype: DType;
  /** A name stands for a size that each run may choose. */
  readonly shape: readonly (number | string)[];
}

/** A weight of the graph. `external` ones are not copied into the model's bytes but handed over beside them. */
export interface OnnxInitializer {
  readonly name: string;
  readonly array: NdArray;
  readonly external: boolean;
  /** Where an external one lies, if the engine is to take it from a file; its dtype there is the graph's. */
  readonly stored?: FileRange & { readonly location?: string };
}

export interface OnnxGraph {
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  readonly initializers: readonly OnnxInitializer[];
  readonly nodes: readonly OnnxNode[];
}

/** The operator set every graph is written in; Gelu needs 20. */
export const OPSET = 20;
const IR_VERSION = 9;

/** ONNX's number for each dtype. */
export const dataTypes: Readonly<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int16: 5,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  bfloat16: 16,
};

/** Writes a graph as an ONNX ModelProto (onnx.proto3). */
export function encodeModel(graph: OnnxGraph): Uint8Array {
  const pbf = new Pbf();
  pbf.writeVarintField(1, IR_VERSION);
  pbf.writeStringField(2, 'noisewright');
  pbf.writeMessage(7, writeGraph, graph);
  for (const domain of new Set(['', ...domainsOf(graph)]))
    pbf.writeMessage(8, writeOpset, { domain, version: domain === '' ? OPSET : 1 });
  return pbf.finish();
}

function domainsOf(graph: OnnxGraph): string[] {
  const nested = graph.nodes.flatMap((node) => Object.values(node.attributes)).filter((a) => 'g' in a);
  return [...graph.nodes.map((node) => node.domain), ...nested.flatMap((a) => domainsOf(a.g))];
}

function writeOpset({ domain, version }: { domain: string; version: number }, pbf: Pbf): void {
  pbf.writeStringField(1, domain);
  pbf.writeVarintField(2, version);
}

function writeGraph(graph: OnnxGraph, pbf: Pbf): void {
  for (const node of graph.nodes) pbf.writeMessage(1, writeNode, node);
  pbf.writeStringField(2, 'noisewright');
  for (const initializer of graph.initializers) pbf.writeMessage(5, writeTensor, initializer);
  for (const value of graph.inputs) pbf.writeMessage(11, writeValue, value);
  for (const value of graph.outputs) pbf.writeMessage(12, writeValue, value);
}

function writeNode(node: OnnxNode, pbf: Pbf): void {
  for (const name of node.inputs) pbf.writeStringField(1, name);
  for (const name of node.outputs) pbf.writeStringField(2, name);
  pbf.writeStringField(3, node.outputs.find((name) => name !== '') ?? '');
  pbf.writeStringField(4, node.type);
  for (const [name, attribute] of Object.entries(node.attributes))
    pbf.writeMessage(5, writeAttribute, { name, attribute });
  pbf.writeStringField(7, node.domain);
}

function writeAttribute({ name, attribute }: { name: string; attribute: Attribute }, pbf: Pbf): void {
  pbf.writeStringField(1, name);
  if ('f' in attribute) {
    pbf.writeFloatField(2, attribute.f);
    pbf.writeVarintField(20, 1);
  } else if ('i' in attribute) {
    pbf.writeVarintField(3, attribute.i);
    pbf.writeVarintField(20, 2);
  } else if ('s' in attribute) {
    pbf.writeStringField(4, attribute.s);
    pbf.writeVarintField(20, 3);
  } else if ('ints' in attribute) {
    for (const value of attribute.ints) pbf.writeVarintField(8, value);
    pbf.writeVarintField(20, 7);
  } else {
    pbf.writeMessage(6, writeGraph, attribute.g);
    pbf.writeVarintField(20, 5);
  }
}

function writeTensor({ name, array, external, stored }: OnnxInitializer, pbf: Pbf): void {
  for (const dim of array.shape) pbf.writeVarintField(1, dim);
  pbf.writeVarintField(2, dataTypes[stored?.dtype ?? array.dtype]);
  pbf.writeStringField(8, name);
  if (external) {
    const length = stored ? stored.end - stored.begin : sizeOf(array.shape) * bytesPerElement(array.dtype);
    pbf.writeMessage(13, writeEntry, { key: 'location', value: stored?.location ?? name });
    if (stored) pbf.writeMessage(13, writeEntry, { key: 'offset', value: String(stored.begin) });
    pbf.writeMessage(13, writeEntry, { key: 'length', value: String(length) });
    pbf.writeVarintField(14, 1);
  } else {
    pbf.writeBytesField(9, toBytes(array));
  }
}

function writeEntry({ key, value }: { key: string; value: string }, pbf: Pbf): void {
  pbf.writeStringField(1, key);
  pbf.writeStringField(2, value);
}

function writeValue(value: OnnxValue, pbf: Pbf): void {
  pbf.writeStringField(1, value.name);
  pbf.writeMessage(2, writeType, value);
}

function writeType(value: OnnxValue, pbf: Pbf): void {
  pbf.writeMessage(1, writeTensorType, value);
}

function writeTensorType(value: OnnxValue, pbf: Pbf): void {
  pbf.writeVarintField(1, dataTypes[value.dtype]);
  pbf.writeMessage(2, writeShape, value.shape);
}

function writeShape(shape: OnnxValue['shape'], pbf: Pbf): void {
  for (const dim of shape) pbf.writeMessage(1, writeDim, dim);
}

function writeDim(dim: number | string, pbf: Pbf): void {
  if (typeof dim === 'string') pbf.writeStringField(2, dim);
  // Written even when 0: a dimension without a value would mean "unknown".
  else pbf.writeVarintField(1, dim);
}
