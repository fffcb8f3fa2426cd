// Mixers at equal steps and at equal processor time:
//   node docs/scripts/mixers.mjs runs/mixers.jsonl docs/images/mixers-trained.svg
// Stopped, it goes on where it was; --seeds 0 and --only mamba do a part.
import { parseArgs } from 'node:util';
import { nn } from 'noisewright';
import { saveCharts } from '../../dist/src/cli/chart.js';
import { markdown, mean, notebook, spread, train } from './comparison.mjs';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, seeds: { type: 'string', default: '0,1,2' } },
});
const [path, picture] = positionals;
const { rows, once } = notebook(path);
const mixers = ['softmax', ...nn.tokenMixers];
/** Every run goes on until it has both. */
const [equalSteps, equalSeconds] = [150, 8];
const marks = [1, 2, 4, 8];
const settings = { model: 'dit', predict: 'flow', steps: 100_000, batch: 16, learningRate: 2e-3, warmup: 20 };
const size = { numAttentionHeads: 2, attentionHeadDim: 32, numLayers: 2, patchSize: 4 };

for (const seed of values.seeds.split(',').map(Number))
  for (const mixer of mixers.filter((name) => !values.only || name === values.only))
    await once({ mixer, seed }, async () => {
      const byTime = [];
      const row = { byTime };
      await train({ ...settings, modelConfig: { ...size, mixer }, seed }, async (run) => {
        if (run.seconds >= (marks[byTime.length] ?? Number.POSITIVE_INFINITY))
          byTime.push({ seconds: run.seconds, step: run.step, loss: await run.lossOf(400) });
        if (run.step === equalSteps) Object.assign(row, { atSteps: await run.lossOf(400), stepsTook: run.seconds });
        row.parameters = run.parameters;
        return byTime.length === marks.length && run.step >= equalSteps;
      });
      return row;
    });

const table = mixers.map((name) => rows.filter(({ mixer }) => mixer === name)).filter((own) => own.length > 0);
console.log(
  markdown([
    ['mixer', 'parameters', `loss after ${equalSteps} steps`, `loss after ${equalSeconds} s`, 'steps in that time'],
    ...table.map((own) => [
      `\`${own[0].mixer}\``,
      own[0].parameters.toLocaleString('en'),
      spread(own.map(({ atSteps }) => atSteps), 4),
      spread(own.map(({ byTime }) => byTime.at(-1).loss), 4),
      Math.round(mean(own.map(({ byTime }) => byTime.at(-1).step))),
    ]),
  ]),
);
if (picture)
  await saveCharts(
    picture,
    [['seconds', 'processor time, s'], ['step', 'steps']].map(([x, xTitle]) => ({
      xTitle,
      yTitle: 'held-out loss',
      xScale: 'log',
      yScale: 'log',
      series: table.map((own) => ({
        name: own[0].mixer,
        points: marks.map((_, i) => {
          const at = own.map(({ byTime }) => byTime[i]);
          return { x: mean(at.map((point) => point[x])), y: mean(at.map(({ loss }) => loss)) };
        }),
      })),
    })),
    { legendTitle: 'mixer' },
  );
