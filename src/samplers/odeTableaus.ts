/**
 * A Runge-Kutta method: `times[i]` and `stages[i]` make the (i + 2)-th slope from the ones before, `solution` weighs all
 * slopes into the step, `error` into the estimate of its error, `middle` into the half-way point.
 */
export interface Tableau {
  readonly order: number;
  readonly times: readonly number[];
  readonly stages: readonly (readonly number[])[];
  readonly solution: readonly number[];
  readonly error?: readonly number[];
  readonly middle?: readonly number[];
}

const difference = (a: readonly number[], b: readonly number[]): number[] => a.map((x, i) => x - b[i]);

const dormandPrince = [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84];
const dormandPrinceStages = {
  times: [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
  stages: [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    dormandPrince,
  ],
  solution: [...dormandPrince, 0],
};

/** Dormand and Prince 1980 with their own fourth-order companion: scipy's RK45. */
export const rk45: Tableau = {
  order: 5,
  ...dormandPrinceStages,
  error: [-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40],
};

/** Prince and Dormand 1981, RK8(7)13M. */
const princeDormand = [
  14005451 / 335480064,
  0,
  0,
  0,
  0,
  -59238493 / 1068277825,
  181606767 / 758867731,
  561292985 / 797845732,
  -1041891430 / 1371343529,
  760417239 / 1151165299,
  118820643 / 751138087,
  -528747749 / 2220607170,
  1 / 4,
];
const princeDormandSeventh = [
  13451932 / 455176623,
  0,
  0,
  0,
  0,
  -808719846 / 976000145,
  1757004468 / 5645159321,
  656045339 / 265891186,
  -3867574721 / 1518517206,
  465885868 / 322736535,
  53011238 / 667516719,
  2 / 45,
  0,
];

/** Slopes' weights half-way through the step: of the interpolating polynomials that torchdiffeq uses, at 1/2. */
const princeDormandMiddle = [
  0.04103130360739393, 0, 0, 0, 0, 0.05100562801991382, 0.2388930677412202, 0.3096870143996103, -0.2172325471755352,
  0.07833405679331928, -0.0018614369715579948, 0.007072844202678841, 0.00690847373200576, -0.013838404349047373,
];

/** With an estimate of the error, under torchdiffeq's names. */
export const adaptiveTableaus = {
  /** Heun's method with Euler's. */
  adaptive_heun: {
    order: 2,
    times: [1],
    stages: [[1]],
    solution: [1 / 2, 1 / 2],
    error: [1 / 2, -1 / 2],
    middle: [1 / 2, 0],
  },
  /** Fehlberg 1969, RK1(2). */
  fehlberg2: {
    order: 2,
    times: [1 / 2, 1],
    stages: [[1 / 2], [1 / 256, 255 / 256]],
    solution: [1 / 512, 255 / 256, 1 / 512],
    error: [-1 / 512, 0, 1 / 512],
    middle: [0, 1 / 2, 0],
  },
  /** Bogacki and Shampine 1989, RK3(2). */
  bosh3: {
    order: 3,
    times: [1 / 2, 3 / 4, 1],
    stages: [[1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
    solution: [2 / 9, 1 / 3, 4 / 9, 0],
    error: [2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8],
    middle: [0, 1 / 2, 0, 0],
  },
  /** Dormand and Prince 1980 with Shampine's companion and half-way point. */
  dopri5: {
    order: 5,
    ...dormandPrinceStages,
    error: [
      ...difference(dormandPrince, [1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300]),
      -1 / 60,
    ],
    middle: [
      6025192743 / 30085553152 / 2,
      0,
      51252292925 / 65400821598 / 2,
      -2691868925 / 45128329728 / 2,
      187940372067 / 1594534317056 / 2,
      -1776094331 / 19743644256 / 2,
      11237099 / 235043384 / 2,
    ],
  },
  dopri8: {
    order: 8,
    times: [
      1 / 18,
      1 / 12,
      1 / 8,
      5 / 16,
      3 / 8,
      59 / 400,
      93 / 200,
      5490023248 / 9719169821,
      13 / 20,
      1201146811 / 1299019798,
      1,
      1,
      1,
    ],
    stages: [
      [1 / 18],
      [1 / 48, 1 / 16],
      [1 / 32, 0, 3 / 32],
      [5 / 16, 0, -75 / 64, 75 / 64],
      [3 / 80, 0, 0, 3 / 16, 3 / 20],
      [29443841 / 614563906, 0, 0, 77736538 / 692538347, -28693883 / 1125000000, 23124283 / 1800000000],
      [
        16016141 / 946692911,
        0,
        0,
        61564180 / 158732637,
        22789713 / 633445777,
        545815736 / 2771057229,
        -180193667 / 1043307555,
      ],
      [
        39632708 / 573591083,
        0,
        0,
        -433636366 / 683701615,
        -421739975 / 2616292301,
        100302831 / 723423059,
        790204164 / 839813087,
        800635310 / 3783071287,
      ],
      [
        246121993 / 1340847787,
        0,
        0,
        -37695042795 / 15268766246,
        -309121744 / 1061227803,
        -12992083 / 490766935,
        6005943493 / 2108947869,
        393006217 / 1396673457,
        123872331 / 1001029789,
      ],
      [
        -1028468189 / 846180014,
        0,
        0,
        8478235783 / 508512852,
        1311729495 / 1432422823,
        -10304129995 / 1701304382,
        -48777925059 / 3047939560,
        15336726248 / 1032824649,
        -45442868181 / 3398467696,
        3065993473 / 597172653,
      ],
      [
        185892177 / 718116043,
        0,
        0,
        -3185094517 / 667107341,
        -477755414 / 1098053517,
        -703635378 / 230739211,
        5731566787 / 1027545527,
        5232866602 / 850066563,
        -4093664535 / 808688257,
        3962137247 / 1805957418,
        65686358 / 487910083,
      ],
      [
        403863854 / 491063109,
        0,
        0,
        -5068492393 / 434740067,
        -411421997 / 543043805,
        652783627 / 914296604,
        11173962825 / 925320556,
        -13158990841 / 6184727034,
        3936647629 / 1978049680,
        -160528059 / 685178525,
        248638103 / 1413531060,
        0,
      ],
      princeDormand,
    ],
    solution: [...princeDormand, 0],
    error: [...difference(princeDormand, princeDormandSeventh), 0],
    middle: princeDormandMiddle,
  },
} as const satisfies Record<string, Tableau>;

/** Without one, on a given grid. */
export const fixedTableaus = {
  euler: { order: 1, times: [], stages: [], solution: [1] },
  midpoint: { order: 2, times: [1 / 2], stages: [[1 / 2]], solution: [0, 1] },
  heun2: { order: 2, times: [1], stages: [[1]], solution: [1 / 2, 1 / 2] },
  heun3: { order: 3, times: [1 / 3, 2 / 3], stages: [[1 / 3], [0, 2 / 3]], solution: [1 / 4, 0, 3 / 4] },
  /** The 3/8 rule of Kutta 1901, as in torchdiffeq: a smaller error than the classical method's. */
  rk4: {
    order: 4,
    times: [1 / 3, 2 / 3, 1],
    stages: [[1 / 3], [-1 / 3, 1], [1, -1, 1]],
    solution: [1 / 8, 3 / 8, 3 / 8, 1 / 8],
  },
} as const satisfies Record<string, Tableau>;
