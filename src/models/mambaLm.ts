import { Embedding, Mamba, type MambaConfig, Module, RMSNorm } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { linear, type Tensor } from '../tensor/index.js';

export interface MambaLmConfig extends Omit<MambaConfig, 'bidirectional'> {
  readonly nLayer: number;
  readonly vocabSize: number;
  /** The vocabulary is filled up to a multiple of it; default 8. */
  readonly padVocabSizeMultiple?: number;
}

class ResidualBlock extends Module {
  readonly mixer: Mamba;
  readonly norm: RMSNorm;

  constructor(config: MambaConfig, rng: Generator) {
    super();
    this.mixer = new Mamba(config, rng);
    this.norm = new RMSNorm(config.dModel, { eps: 1e-5 });
  }

  forward(x: Tensor): Tensor {
    return this.mixer.forward(this.norm.forward(x)).add(x);
  }
}

/** Mamba as a language model (Gu and Dao 2023); the embedding is the last layer, too. Follows mamba-minimal. */
export class MambaLm extends Module {
  readonly embedding: Embedding;
  readonly layers: readonly ResidualBlock[];
  readonly normF: RMSNorm;

  constructor(config: MambaLmConfig, rng: Generator) {
    super();
    const { vocabSize, nLayer, padVocabSizeMultiple: multiple = 8, dModel } = config;
    this.embedding = new Embedding(Math.ceil(vocabSize / multiple) * multiple, dModel, rng);
    this.layers = Array.from({ length: nLayer }, () => new ResidualBlock(config, rng));
    this.normF = new RMSNorm(dModel, { eps: 1e-5 });
  }

  /** @param ids int64 [N, L] @returns logits of the next token [N, L, vocabulary] */
  forward(ids: Tensor): Tensor {
    let x = this.embedding.forward(ids);
    for (const layer of this.layers) x = layer.forward(x);
    return linear(this.normF.forward(x), this.embedding.weight);
  }
}
