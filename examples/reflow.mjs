// Few steps before and after reflow (docs/flow-matching.md). Writes docs/images/reflow.png and prints how straight both
// flows are. Run: npm run build && node examples/reflow.mjs runs/reflowed
import { cfg, evenEuler, Generator, imageGrid, ndarray, straightness, unguided } from 'noisewright';
import { ClassConditionalPipeline, savePng } from 'noisewright/node';

const reflowed = process.argv[2] ?? 'runs/reflowed';
const flows = [
  { name: 'teacher', folder: new URL('../assets/fashion-mnist-dit', import.meta.url).pathname, guidance: cfg(1.5) },
  { name: 'reflowed', folder: reflowed, guidance: unguided() },
];
const compile = { threads: 1 };
const sampler = evenEuler();
const [rows, rowLabels] = [[], []];
let classNames = [];
for (const { name, folder, guidance } of flows) {
  const pipeline = await ClassConditionalPipeline.fromPretrained(folder);
  classNames = pipeline.classNames;
  const classes = classNames.map((_, label) => label);
  const noiseOf = (n, seed) => new Generator(seed).randn([n, 1, 28, 28]);
  for (const steps of [1, 2, 4]) {
    const latents = noiseOf(10, 7);
    rows.push(await pipeline.images({ classes, sampler, plan: { steps }, guidance, latents, compile }));
    rowLabels.push(`${name}, ${steps} step${steps > 1 ? 's' : ''}`);
  }

  const states = [noiseOf(60, 8)];
  const labels = Array.from({ length: 60 }, (_, i) => i % 10);
  for await (const { sample } of pipeline.sample({
    classes: labels,
    sampler,
    plan: { steps: 32 },
    guidance,
    latents: states[0],
    compile,
  }))
    states.push(sample);
  console.log(`${name}: straightness ${straightness(states).toFixed(4)}`);
}
const pictures = ndarray(Float32Array.from(rows.flatMap(({ data }) => [...data])), [60, 1, 28, 28]);
const grid = imageGrid(pictures, 10, { rowLabels, columnLabels: classNames, scale: 2 });
await savePng(new URL('../docs/images/reflow.png', import.meta.url).pathname, grid);
