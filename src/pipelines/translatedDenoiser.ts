import type { Denoiser } from '../models/index.js';
import { Module } from '../nn/index.js';
import type { Tensor } from '../tensor/index.js';

/** A model of one process in the terms of another, for samplers of that other. */
export abstract class TranslatedDenoiser extends Module implements Denoiser {
  readonly config: object;
  readonly inChannels: number;
  readonly outChannels: number;

  constructor(readonly model: Denoiser) {
    super();
    this.config = model.config;
    this.inChannels = model.inChannels;
    this.outChannels = model.outChannels;
  }

  get sampleSize(): number {
    return this.model.sampleSize;
  }

  get nullClass(): number | undefined {
    return this.model.nullClass;
  }

  abstract forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor;
}
