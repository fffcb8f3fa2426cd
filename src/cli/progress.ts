import { MultiBar, type SingleBar } from 'cli-progress';
import { duration, figure, type Output } from './output.js';

export interface ProgressOptions {
  /** What goes on, such as `training`. */
  readonly label: string;
  /** How many steps there are; 0 where time, not their number, ends it. */
  readonly total: number;
  /** Steps that were done before. */
  readonly done?: number;
  /** Seconds until it ends whatever is done. */
  readonly seconds?: number;
  /** Between two lines where there is no terminal; default 10. */
  readonly lineSeconds?: number;
}

export interface ProgressFigures {
  readonly loss?: number;
  /** Pictures worked through since the last update. */
  readonly images?: number;
}

/** Shows how far a command is: a bar on a terminal, now and then a line elsewhere, nothing with `--json`. */
export class Progress {
  private readonly began = performance.now();
  private readonly bars?: MultiBar;
  private readonly bar?: SingleBar;
  private done: number;
  private imagesPerSecond?: number;
  private loss?: number;
  private lastUpdate = this.began;
  private lastLine = this.began;

  constructor(
    private readonly output: Output,
    private readonly options: ProgressOptions,
  ) {
    this.done = options.done ?? 0;
    if (!output.sink.interactive || output.json) return;
    const format = `${options.label} [{bar}] {text}`;
    this.bars = new MultiBar({ format, barsize: 24, hideCursor: false, clearOnComplete: false, fps: 5 });
    this.bar = this.bars.create(1000, 0, { text: '' });
  }

  /** @param done steps, of the total; rounded. */
  update(done: number, { loss, images }: ProgressFigures = {}): void {
    const now = performance.now();
    if (loss !== undefined) this.loss = this.loss === undefined ? loss : 0.95 * this.loss + 0.05 * loss;
    if (images !== undefined) {
      const rate = (images / Math.max(1, now - this.lastUpdate)) * 1000;
      this.imagesPerSecond = this.imagesPerSecond === undefined ? rate : 0.9 * this.imagesPerSecond + 0.1 * rate;
    }
    this.lastUpdate = now;
    this.done = Math.round(done);
    this.bar?.update(Math.floor(1000 * this.share(now)), { text: this.text(now) });
    if (!this.bar && now - this.lastLine > 1000 * (this.options.lineSeconds ?? 10)) {
      this.lastLine = now;
      this.output.line(`${this.options.label}: ${this.text(now)}`);
    }
  }

  /** A line for people that does not disturb the bar. */
  log(text: string): void {
    if (this.bars) this.bars.log(`${text}\n`);
    else this.output.line(text);
  }

  stop(): void {
    this.bar?.update(Math.floor(1000 * this.share(performance.now())), { text: this.text(performance.now()) });
    this.bars?.update(); // logged lines are written when the bar is drawn again
    this.bars?.stop();
  }

  private share(now: number): number {
    const { total, seconds } = this.options;
    return Math.min(1, seconds === undefined ? this.done / total : (now - this.began) / 1000 / seconds);
  }

  private text(now: number): string {
    const { total, seconds, done: before = 0 } = this.options;
    const spent = (now - this.began) / 1000;
    const left =
      seconds === undefined ? (spent / Math.max(1, this.done - before)) * (total - this.done) : seconds - spent;
    return [
      total > 0 ? `${this.done}/${total}` : `step ${this.done}`,
      this.loss !== undefined && `loss ${this.loss.toFixed(4)}`,
      this.imagesPerSecond !== undefined && `${figure(this.imagesPerSecond)} images/s`,
      this.done > before && left > 0 && `${duration(left)} left`,
    ]
      .filter(Boolean)
      .join('  ');
  }
}
