import { blankRaster, type Raster } from './raster.js';

/** Pixels from one letter to the next, and from one line to the next. */
export const letterPitch = 6;
export const linePitch = 9;
const rows = 7;

// A letter, then its seven rows of five pixels as base-32 digits, the high bit leftmost.
const font = new Map(
  `0ehjlphe 14c4444e 2eh1248v 3v2421he 426aiv22 5vgu11he 668guhhe 7v124888 8ehhehhe 9ehhf12c
   Aehhvhhh Buhhuhhu Cehggghe Dsihhhis Evgguggv Fvgguggg Gehgnhhf Hhhhvhhh Ie44444e J72222ic Khikokih
   Lggggggv Mhrllhhh Nhhpljhh Oehhhhhe Puhhuggg Qehhhlid Ruhhukih Sfgge11u Tv444444 Uhhhhhhe Vhhhhha4
   Whhhllla Xhha4ahh Yhhha444 Zv1248gv
   a00e1fhf bggmphhu c00egghe d11djhhf e00ehvge f698s888 g0fhhf1e hggmphhh i40c444e j20622ic kggikoki
   lc44444e m00qllhh n00mphhh o00ehhhe p00uhugg q00djf11 r00mpggg s00ege1u t88s8896 u00hhhjd v00hhha4
   w00hhlla x00ha4ah y00hhf1e z00v248v
   .00000cc ,0000c48 :0cc0cc0 ;0cc0c48 !4444404 ?eh12404 -000v000 +044v440 =00v0v00 _000000v /01248g0
   (2488842 )8422248 [e88888e ]e22222e <248g842 >8421248 %op248j3 #aavavaa *04lel40 'c480000 "aaa0000
   &cik8lid |4444444 @eh1dlle ~008l200 ^4ah0000 $4fke5u4`
    .split(/\s+/)
    .map((glyph) => [glyph[0], Array.from(glyph.slice(1), (digit) => Number.parseInt(digit, 32))]),
);

/**
 * Draws text in a small built-in font, black on white: no fonts of the system are needed.
 * @param text printable ASCII, lines parted by `\n`; other characters become `?`.
 */
export function drawText(text: string): Raster {
  const lines = text.split('\n');
  const width = Math.max(0, ...lines.map((line) => line.length * letterPitch - 1));
  const picture = blankRaster(width, lines.length * linePitch - (linePitch - rows), 1);
  for (const [y, line] of lines.entries())
    for (const [x, letter] of [...line].entries())
      for (const [row, bits] of (letter === ' ' ? [] : (font.get(letter) ?? font.get('?')!)).entries())
        for (let column = 0; column < 5; column++)
          if (bits & (16 >> column)) picture.data[(y * linePitch + row) * width + x * letterPitch + column] = 0;
  return picture;
}

/** Breaks text between words into lines of at most `letters`, cutting words that are longer. */
export function wrapText(text: string, letters: number): string {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const joined = `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && joined.length <= letters) lines[lines.length - 1] = joined;
    else lines.push(word.slice(0, Math.max(1, letters)));
  }
  return lines.join('\n');
}
