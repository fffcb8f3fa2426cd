// Draws what each norm averages over: node docs/scripts/norms.mjs docs/images/norms.svg
import { writeFileSync } from 'node:fs';

const [path] = process.argv.slice(2);
if (!path) throw new Error('norms: expected the SVG file to write');

/** Channels, pixels (height and width as one axis) and images of the block that is drawn. */
const [C, P, N] = [6, 4, 5];
const cell = 17;
const [slantX, slantY] = [9, 6];
/** Which numbers share a mean with those of image 0 and channel 0. */
const norms = [
  ['BatchNorm', 'N, H, W', (c) => c === 0],
  ['LayerNorm', 'C, H, W', (_, n) => n === 0],
  ['InstanceNorm', 'H, W', (c, n) => c === 0 && n === 0],
  ['GroupNorm, 2 groups', 'C / G, H, W', (c, n) => c < C / 2 && n === 0],
];

const panelWidth = C * cell + N * slantX + 60;
const top = 52;
const point = (c, p, n) => [26 + c * cell + n * slantX, top + N * slantY + p * cell - n * slantY];
const face = (corners, fill) =>
  `<polygon points="${corners.map((corner) => point(...corner).join(',')).join(' ')}" fill="${fill}"/>`;
const tones = { on: ['#3b82c4', '#7fb2e0', '#2a639a'], off: ['#f4f4f4', '#ffffff', '#e2e2e2'] };

/** The three sides of the block that are seen, cell by cell. */
function block(together) {
  const faces = [];
  const tone = (c, n, side) => tones[together(c, n) ? 'on' : 'off'][side];
  for (let c = 0; c < C; c++)
    for (let p = 0; p < P; p++)
      faces.push(face([[c, p, 0], [c + 1, p, 0], [c + 1, p + 1, 0], [c, p + 1, 0]], tone(c, 0, 0)));
  for (let c = 0; c < C; c++)
    for (let n = 0; n < N; n++)
      faces.push(face([[c, 0, n], [c + 1, 0, n], [c + 1, 0, n + 1], [c, 0, n + 1]], tone(c, n, 1)));
  for (let p = 0; p < P; p++)
    for (let n = 0; n < N; n++)
      faces.push(face([[C, p, n], [C, p, n + 1], [C, p + 1, n + 1], [C, p + 1, n]], tone(C - 1, n, 2)));
  return `<g stroke="#555" stroke-width="0.7" stroke-linejoin="round">${faces.join('')}</g>`;
}

const label = (x, y, text, more = '') => `<text x="${x}" y="${y}" ${more}>${text}</text>`;
const panels = norms.map(([name, axes, together], i) => {
  const middle = 26 + (C * cell + N * slantX) / 2;
  const bottom = top + N * slantY + P * cell;
  const parts = [
    label(middle, 20, name, 'text-anchor="middle" font-size="14" font-weight="bold"'),
    label(middle, 38, `over ${axes}`, 'text-anchor="middle"'),
    block(together),
    label(26 + (C * cell) / 2, bottom + 16, 'C', 'text-anchor="middle"'),
    label(18, top + N * slantY + (P * cell) / 2, 'H, W', `text-anchor="middle" transform="rotate(-90 18 ${top + N * slantY + (P * cell) / 2})"`),
    label(26 + C * cell + (N * slantX) / 2 + 10, bottom - (N * slantY) / 2 + 10, 'N'),
  ];
  return `<g transform="translate(${i * panelWidth} 0)">${parts.join('\n')}</g>`;
});
const [width, height] = [norms.length * panelWidth, top + N * slantY + P * cell + 28];
writeFileSync(
  path,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="100%" height="100%" fill="white"/>
${panels.join('\n')}
</svg>
`,
);
