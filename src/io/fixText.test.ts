import { describe, expect, it } from 'vitest';
import { fixText, unescapeHtml } from './fixText.js';

describe('fixText', () => {
  it.each([
    ['curly quotes', '‘it’s’ “so”', `'it's' "so"`],
    ['widths', 'ＡＢＣ　１２ ｶﾞ', 'ABC 12 ガ'],
    ['ligatures', 'ﬁ ﬂuﬃer ǅ ﬅ', 'fi fluffier Dž ſt'],
    ['line breaks', 'a\r\nb\rc\u2028d', 'a\nb\nc\nd'],
    ['controls', 'nu\0ll \ufeffbom \u001b[1;31mred\u001b[0m', 'null bom red'],
    ['half a pair', 'a\ud83d b', 'a\ufffd b'],
    ['composition', 'cafe\u0301', 'café'],
    ['entities', 'P&eacute;rez &amp;amp; P&EACUTE;REZ &bogus; &notit;', 'Pérez & PÉREZ &bogus; &notit;'],
    ['no entities in markup', '<b>&amp;</b>\n&amp;', '<b>&amp;</b>\n&amp;'],
    ['C1 as Windows-1252', 'it\x92s', "it's"],
  ])('mends %s', (_, text, fixed) => {
    expect(fixText(text)).toBe(fixed);
  });

  it('reads UTF-8 that was taken for Windows-1252 or Latin-1, even twice', () => {
    const latin1 = (text: string) => String.fromCharCode(...new TextEncoder().encode(text));
    for (const text of ['schön', 'naïve café', 'Москва', '東京 art', 'a ✔ b', '10 €', 'Łódź…']) {
      expect(fixText(latin1(text))).toBe(text);
      expect(fixText(latin1(latin1(text)))).toBe(text);
    }
    expect(fixText('It doesnÃ¢â‚¬â„¢t, schÃ¶n 東京')).toBe("It doesn't, schön 東京");
  });

  it('leaves honest text alone', () => {
    for (const text of ['NESTLÉ® É¿ lá´´ 5×£35 SELKÄ', 'PÓŁNOC ½ © x² 50€ 😀 “CAFÉ” é…', 'дії її'])
      expect(fixText(text)).toBe(text.replace(/[“”]/g, '"'));
  });

  it('unescapes HTML twice, as Python does', () => {
    expect(unescapeHtml('&amp;lt; AT&T &copy 1 &#1;&#x80; &amp;amp;amp;')).toBe('< AT&T © 1 € &amp;');
  });
});
