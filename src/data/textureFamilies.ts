/** Red, green and blue in 0..1. */
export type Colour = readonly [number, number, number];
/** The colour at a point; one unit is about one element of the texture: a dot, a stripe, a stroke. */
export type Painting = (x: number, y: number) => Colour;

/** The randomness of one texture, the same wherever it is asked. All results are in 0..1 unless said. */
export interface Palette {
  /** A number of this texture. */
  between(low: number, high: number): number;
  /** A number of a lattice point. */
  hash(x: number, y: number, k?: number): number;
  /** Smooth value noise: one bump per unit. */
  noise(x: number, y: number, k?: number): number;
  /** Noise of four octaves. */
  clouds(x: number, y: number, k?: number): number;
  /** From one end of the palette to the other. */
  blend(t: number): Colour;
  /** One of the palette's colours. */
  pick(h: number): Colour;
}

const { abs, atan2, cos, floor, hypot, max, min, PI, sin } = Math;
const fraction = (x: number): number => x - floor(x);
const within = (x: number): number => min(1, max(0, x));
/** 0 below, 1 above, a soft edge between. */
const edge = (x: number, at: number, soft = 0.05): number => within((x - at) / soft + 0.5);

export const mixColours = (a: Colour, b: Colour, t: number): Colour => [
  a[0] + (b[0] - a[0]) * t,
  a[1] + (b[1] - a[1]) * t,
  a[2] + (b[2] - a[2]) * t,
];
const shade = (colour: Colour, by: number): Colour => [
  within(colour[0] * by),
  within(colour[1] * by),
  within(colour[2] * by),
];

/** The two nearest of one random point per unit square: the nearest's square and offset, both distances. */
function nearest(p: Palette, x: number, y: number, jitter = 0.9) {
  const [column, row] = [floor(x), floor(y)];
  let [first, second, ci, cj, dx, dy] = [9, 9, 0, 0, 0, 0];
  for (let j = row - 1; j <= row + 1; j++)
    for (let i = column - 1; i <= column + 1; i++) {
      const u = x - i - 0.5 - jitter * (p.hash(i, j, 1) - 0.5);
      const v = y - j - 0.5 - jitter * (p.hash(i, j, 2) - 0.5);
      const distance = hypot(u, v);
      if (distance < first) [second, first, ci, cj, dx, dy] = [first, distance, i, j, u, v];
      else if (distance < second) second = distance;
    }
  return { first, second, i: ci, j: cj, dx, dy };
}

type Field = (x: number, y: number) => number;

interface Mark {
  readonly x: number;
  readonly y: number;
  readonly cos: number;
  readonly sin: number;
  /** Which lies on top. */
  readonly order: number;
}

/** Overlapping brush marks, one per unit square: the uppermost at a point, and where along and across (-1..1) it is. */
function strokes(
  p: Palette,
  { length, width, angle, layer }: { length: number; width: number; angle: Field; layer: number },
) {
  const reach = Math.ceil(length);
  const known = new Map<number, Mark>();
  const markOf = (i: number, j: number): Mark => {
    const key = i * 1e6 + j;
    const mark = known.get(key);
    if (mark) return mark;
    const [x, y] = [i + p.hash(i, j, layer + 1), j + p.hash(i, j, layer + 2)];
    const turn = angle(x, y) + 0.5 * (p.hash(i, j, layer + 3) - 0.5);
    const made = { x, y, cos: cos(turn), sin: sin(turn), order: p.hash(i, j, layer) };
    known.set(key, made);
    return made;
  };
  return (x: number, y: number) => {
    const [column, row] = [floor(x), floor(y)];
    let found: { mark: Mark; along: number; across: number } | undefined;
    for (let j = row - reach; j <= row + reach; j++)
      for (let i = column - reach; i <= column + reach; i++) {
        const mark = markOf(i, j);
        if (found && mark.order <= found.mark.order) continue;
        const along = ((x - mark.x) * mark.cos + (y - mark.y) * mark.sin) / length;
        const across = ((y - mark.y) * mark.cos - (x - mark.x) * mark.sin) / width;
        if (along ** 4 + across * across < 1) found = { mark, along, across };
      }
    return found;
  };
}

/** Brush marks along a field, coloured by clouds; what they leave uncovered is painted with larger ones. */
function brushed(p: Palette, length: number, width: number, angle: Field): Painting {
  const [rough, ridges] = [p.between(0.1, 0.5), p.between(2, 5)];
  const size = p.between(3, 6);
  const upper = strokes(p, { length, width, angle, layer: 10 });
  const lower = strokes(p, { length, width: 2 * width, angle, layer: 20 });
  return (x, y) => {
    const found = upper(x, y) ?? lower(x, y);
    if (!found) return p.blend(p.clouds(x / size, y / size));
    const { mark, along, across } = found;
    const tone = p.clouds(mark.x / size, mark.y / size) + rough * (mark.order - 0.5);
    const bristles = 1 + 0.25 * (p.noise(across * ridges, along * 0.7 + 40 * mark.order, 7) - 0.5);
    return shade(p.blend(within(tone)), bristles * (1 - 0.15 * abs(across) ** 3));
  };
}

/** Direction of the flow around the hills of a noise field, in radians. */
const swirl = (p: Palette, size: number): Field => {
  const height: Field = (x, y) => p.noise(x / size, y / size, 30);
  return (x, y) => atan2(height(x + 0.1, y) - height(x - 0.1, y), -(height(x, y + 0.1) - height(x, y - 0.1)));
};

const ink = (p: Palette, dark: number): Colour => mixColours(p.pick(0), p.pick(0.99), dark);

/** What a texture may be: each draws what sets it apart from its like, then paints. */
export const textureFamilies: Readonly<Record<string, (p: Palette) => Painting>> = {
  bricks(p) {
    const [long, gap] = [p.between(1.6, 3), p.between(0.06, 0.16)];
    return (x, y) => {
      const row = floor(y);
      const u = x / long + 0.5 * (row & 1);
      const mortar = max(
        edge(gap / long, min(fraction(u), 1 - fraction(u)), 0.05),
        edge(gap, min(fraction(y), 1 - fraction(y)), 0.08),
      );
      const stone = shade(p.blend(p.hash(floor(u), row)), 0.75 + 0.5 * p.clouds(2 * x, 2 * y));
      return mixColours(stone, ink(p, 0.9), mortar);
    };
  },
  brushwork: (p) => brushed(p, p.between(0.8, 1.8), p.between(0.25, 0.5), swirl(p, p.between(3, 8))),
  checks(p) {
    const [share, other] = [p.between(0.3, 0.7), p.between(0.1, 0.4)];
    const threads = p.between(3, 8);
    return (x, y) => {
      const across = edge(fraction(x), share, 0.04) + 0.5 * edge(fraction(2 * x + 0.3), 1 - other, 0.04);
      const down = edge(fraction(y), share, 0.04) + 0.5 * edge(fraction(2 * y + 0.3), 1 - other, 0.04);
      return shade(p.blend((across + down) / 3), 0.93 + 0.14 * fraction(threads * (x + y)));
    };
  },
  clouds: (p) => (x, y) => p.blend(within(1.6 * p.clouds(x / 2, y / 2) - 0.3)),
  cracks(p) {
    const wide = p.between(0.05, 0.2);
    return (x, y) => {
      const { first, second, i, j } = nearest(p, x, y);
      const clay = shade(p.blend(0.3 + 0.4 * p.hash(i, j, 3)), 0.8 + 0.4 * p.clouds(2 * x, 2 * y));
      return mixColours(ink(p, 0), clay, edge(second - first, wide, 0.12));
    };
  },
  crosshatch(p) {
    const lines = p.between(2, 4);
    return (x, y) => {
      const tone = p.clouds(x / 4, y / 4);
      const wobble = 0.3 * p.noise(x / 2, y / 2, 3);
      const one = abs(fraction(lines * (x + y) * 0.7 + wobble) - 0.5) * 2;
      const two = abs(fraction(lines * (x - y) * 0.7 + wobble) - 0.5) * 2;
      const dark = max(edge(0.9 - 1.1 * tone, one, 0.25), edge(0.5 - tone, two, 0.25));
      return mixColours(p.pick(0.99), p.pick(0), dark);
    };
  },
  dots(p) {
    const [radius, vary, jitter] = [p.between(0.2, 0.42), p.between(0, 0.2), p.between(0, 0.5)];
    const [one] = [p.between(0, 1) < 0.5];
    return (x, y) => {
      const { first, i, j } = nearest(p, x, y + 0.5 * (floor(x) & 1), jitter);
      const spot = one ? p.pick(0.99) : p.pick(p.hash(i, j, 3));
      return mixColours(p.pick(0), spot, edge(radius + vary * (p.hash(i, j, 4) - 0.5), first, 0.06));
    };
  },
  facets(p) {
    const steep = p.between(0.3, 0.9);
    return (x, y) => {
      const { i, j, dx, dy } = nearest(p, x / 1.5, y / 1.5);
      const turn = 2 * PI * p.hash(i, j, 3);
      const light = within(p.hash(i, j, 4) + steep * (dx * cos(turn) + dy * sin(turn)));
      return p.blend(light);
    };
  },
  grain: (p) => {
    const [rough, size] = [p.between(0.3, 0.9), p.between(2, 6)];
    return (x, y) => p.blend(within(p.clouds(x / size, y / size) + rough * (p.noise(4 * x, 4 * y, 5) - 0.5)));
  },
  halftone(p) {
    return (x, y) => {
      const tone = p.clouds(floor(2 * x) / 6, floor(2 * y) / 6);
      const distance = hypot(fraction(2 * x) - 0.5, fraction(2 * y) - 0.5);
      return mixColours(p.pick(0.99), p.pick(0), edge(0.1 + 0.6 * tone, distance, 0.1));
    };
  },
  labyrinth(p) {
    const waves = Array.from({ length: 14 }, (_, k) => {
      const turn = PI * p.hash(k, 50);
      return [cos(turn), sin(turn), 2 * PI * p.hash(k, 51)];
    });
    const [at, soft] = [p.between(-0.6, 0.6), p.between(0.3, 1.5)];
    return (x, y) => {
      const sum = waves.reduce((total, [c, s, phase]) => total + cos(2 * PI * (c * x + s * y) * 0.7 + phase), 0) / 2;
      return p.blend(edge(sum, at, soft));
    };
  },
  marble(p) {
    const [twist, sharp] = [p.between(2, 6), p.between(0.4, 1.2)];
    return (x, y) => p.blend(abs(sin(PI * (x / 2 + twist * (p.clouds(x / 4, y / 4) - 0.5)))) ** sharp);
  },
  mosaic(p) {
    const [grout, jitter] = [p.between(0.05, 0.15), p.between(0.2, 0.9)];
    const areas = p.between(3, 6);
    return (x, y) => {
      const { first, second, i, j } = nearest(p, x, y, jitter);
      const tone = within(p.clouds(i / areas, j / areas) * 1.4 - 0.2 + 0.3 * (p.hash(i, j, 3) - 0.5));
      return mixColours(ink(p, 0.1), shade(p.blend(tone), 1.1 - 0.3 * first), edge(second - first, grout, 0.08));
    };
  },
  points: (p) => {
    const [radius, size, rough] = [p.between(0.4, 0.7), p.between(3, 7), p.between(0.4, 1)];
    const spots = strokes(p, { length: radius, width: radius, angle: () => 0, layer: 10 });
    return (x, y) => {
      const mark = spots(2 * x, 2 * y)?.mark;
      if (!mark) return p.blend(p.clouds((2 * x) / size, (2 * y) / size));
      return p.blend(within(p.clouds(mark.x / size, mark.y / size) + rough * (fraction(97 * mark.order) - 0.5)));
    };
  },
  rings(p) {
    const count = p.between(2, 4);
    return (x, y) => {
      const [i, j] = [floor(x / 2), floor(y / 2)];
      const distance = hypot(fraction(x / 2) - 0.5, fraction(y / 2) - 0.5) * (0.9 + 0.2 * p.noise(x, y));
      return p.pick(p.hash(i, 31 * j + floor(2 * count * distance), 3));
    };
  },
  scales(p) {
    const bands = p.between(2, 4);
    return (x, y) => {
      let row = Math.ceil(2 * y);
      for (let k = 0; k < 3; k++, row--) {
        const u = x + 0.5 * (row & 1);
        const distance = hypot(fraction(u) - 0.5, y - row / 2);
        if (distance < 0.5) {
          const band = fraction(bands * distance * 2);
          return mixColours(p.blend(p.hash(floor(u), row, 3) * 0.5 + distance), p.pick(0.99), edge(band, 0.75, 0.15));
        }
      }
      return p.pick(0);
    };
  },
  splatter(p) {
    const share = p.between(0.3, 0.7);
    return (x, y) => {
      let colour = p.pick(0.99);
      for (const [k, size] of [2, 1, 0.4].entries()) {
        const { first, i, j } = nearest(p, x / size + 9 * k, y / size);
        const radius = p.hash(i, j, 3) < share ? 0.15 + 0.3 * p.hash(i, j, 4) + 0.15 * p.noise(4 * x, 4 * y, 6) : -1;
        colour = mixColours(colour, p.pick(p.hash(i, j, 5) * 0.9), edge(radius, first, 0.06));
      }
      return colour;
    };
  },
  stripes(p) {
    const [wave, long] = [p.between(0, 0.6), p.between(2, 5)];
    const soft = p.between(0, 1) < 0.4;
    return (x, y) => {
      const u = x + wave * sin((2 * PI * y) / long);
      return soft ? p.blend(0.5 + 0.5 * sin(PI * u)) : p.pick(p.hash(floor(2 * u), 0));
    };
  },
  swirls: (p) => brushed(p, p.between(1.5, 2.5), p.between(0.12, 0.25), swirl(p, p.between(2, 5))),
  thatch: (p) => {
    const base = p.between(0, PI);
    return brushed(p, p.between(1.5, 2.5), p.between(0.08, 0.2), () => base);
  },
  watercolour(p) {
    const layers = [0, 1, 2, 3].map((k) => ({
      at: p.between(0.35, 0.6),
      size: p.between(1.5, 4),
      colour: p.pick(p.hash(k, 60)),
    }));
    return (x, y) => {
      let colour = mixColours(p.pick(0.99), [1, 1, 1], 0.5);
      for (const [k, { at, size, colour: own }] of layers.entries()) {
        const depth = p.clouds(x / size, y / size, 70 + 10 * k) - at;
        const wash = 0.5 * edge(depth, 0, 0.06) + 0.25 * edge(0.04, abs(depth - 0.02), 0.04);
        colour = mixColours(colour, own, wash * (0.8 + 0.4 * p.noise(3 * x, 3 * y, k)));
      }
      return colour;
    };
  },
  weave(p) {
    const strands = p.between(2, 5);
    return (x, y) => {
      const over = (floor(x) + floor(y)) % 2 === 0;
      const [u, v] = over ? [fraction(x), fraction(y)] : [fraction(y), fraction(x)];
      const round = sin(PI * v) ** 0.5 * (0.7 + 0.3 * sin(PI * u));
      return shade(p.blend(over ? 0.2 : 0.8), round * (0.85 + 0.3 * fraction(strands * v)));
    };
  },
  wood(p) {
    const [knots, fine] = [p.between(0.3, 1.2), p.between(0.05, 0.2)];
    return (x, y) => {
      const ring = fraction(x / 2 + knots * p.clouds(x / 6, y / 20) * 4);
      return shade(p.blend(ring), 1 - fine + 2 * fine * p.noise(8 * x, y / 2, 4));
    };
  },
};
