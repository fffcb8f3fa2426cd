import { decodeHTML } from 'entities/decode';

/**
 * Mends text that was pasted or decoded carelessly: what openai/CLIP does to prompts with python-ftfy's `fix_text`.
 * Undoes HTML entities (unless there is markup), takes UTF-8 that was read as Windows-1252 or Latin-1 for what it was
 * meant to be, opens ligatures, brings full- and half-width letters to their usual width, straightens curly quotes,
 * and removes control characters and terminal colours; the result is in Unicode's form NFC.
 *
 * Only the mojibake is judged by another rule than ftfy's, and a shorter one: UTF-8 that was read as some other
 * encoding than those two (Windows-1251, MacRoman ...), or that lost characters on its way, is left as it is.
 */
export function fixText(text: string): string {
  let markup = false;
  return text
    .split(/(?<=\n)/)
    .map((line) => {
      markup ||= line.includes('<');
      return fixLine(line, !markup);
    })
    .join('');
}

/** ASCII's controls but for white space, Arabic's forgotten ones, the byte order mark and annotations. */
const unwanted = /(?![\t\n\f\r\x80-\x9f])\p{Cc}|[\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;
const terminalCode = new RegExp(`${String.fromCharCode(0x1b)}\\[[\\d;]*[a-zA-Z]`, 'g');

function fixLine(text: string, entities: boolean): string {
  const fixed = repairEncoding(entities ? text.replace(/&#?[0-9A-Za-z]{1,24};/g, entity) : text)
    .replace(/[\x80-\x9f]/g, (c) => windows1252[c.charCodeAt(0) - 0x80])
    .replace(/[Ĳĳŉ\u01f1-\u01f3\u01c4-\u01cc\ufb00-\ufb06]/g, ligature)
    .replace(/[\u3000\uff01-\uffef]/g, (c) => c.normalize('NFKC'))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/\r\n?|[\u2028\u2029]/g, '\n')
    .replace(/\p{Cs}/gu, '\ufffd')
    .replace(terminalCode, '')
    .replace(unwanted, '')
    .normalize('NFC');
  return fixed === text ? text : fixLine(fixed, entities);
}

/** Twice decoded HTML, without what a reference like `&#1;` smuggled in: Python's `html.unescape(html.unescape(text))`. */
export const unescapeHtml = (text: string): string => decodeHTML(decodeHTML(text)).replace(unwanted, '');

/** An entity with its semicolon; names in capitals (`&EACUTE;`) count, too. */
function entity(name: string): string {
  const decoded = decodeHTML(name);
  if (decoded !== name) return decoded.length > 1 && decoded.endsWith(';') ? name : decoded;
  return name === name.toUpperCase() ? decodeHTML(name.toLowerCase()).toUpperCase() : name;
}

/** As NFKC has it, but that the long s stays long. */
const ligature = (c: string): string => (c === '\ufb05' ? 'ſt' : c.normalize('NFKC'));

/** Windows-1252's bytes 80..9F; those it leaves undefined stand for themselves. */
const windows1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';
const byteOf = (c: string): number => {
  const at = windows1252.indexOf(c);
  return at < 0 ? c.charCodeAt(0) : at + 0x80;
};

const trail = `[\\x80-\\xbf${windows1252}]`;
const sequence = `[\\xc2-\\xdf]${trail}|[\\xe0-\\xef]${trail}{2}|[\\xf0-\\xf4]${trail}{3}`;
const sequences = new RegExp(`(?:${sequence})+`, 'g');

/** Marks and signs that stand beside letters in honest text, singly or two together. */
const marks = '\\xa0¢£¥«´·»‘’“”‚„‹›–—…•';
/**
 * Letters and what follows them in no language. Behind Â, Ã, Î and Ð that is nearly anything; behind other capitals a
 * sign of another kind, or a mark within a word; behind small letters two signs or more that are not both marks.
 */
const convincing = new RegExp(
  `[ÂÃÎÐ](?![’…])${trail}|[Ä-ÖØ-ß](?:[\\x80-\\x9f¤¦§¨¬¯°±²³µ¶¸¹¼½¾ªºƒˆ˜†‡‰]|[¡«¿©‘‚“„•‹®»”›™](?=\\p{L}))` +
    `|(?:×${trail}){2}|[à-ï](?![${marks}]{2})${trail}{2}|[ð-ô]${trail}{3}`,
  'u',
);

/** Reads what looks like the bytes of UTF-8 as UTF-8, more than once if need be: all of a text that is nothing else, or parts. */
function repairEncoding(text: string): string {
  const whole = /^\p{ASCII}*$/u.test(text.replace(sequences, ''));
  if (whole && !convincing.test(text)) return text;
  const repaired = text.replace(sequences, (run) => (whole || convincing.test(run) ? asUtf8(run) : run));
  return repaired === text ? text : repairEncoding(repaired);
}

function asUtf8(run: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(run, byteOf));
  } catch {
    return run; // an overlong form, a surrogate, or beyond U+10FFFF
  }
}
