// Strict JSON, as the signed documents ask for it.
//
// JSON.parse is not strict enough: it takes the last of two equal keys, turns 1.0 into 1, and rounds
// large integers. This parser refuses duplicate keys (judged after unescaping) and lone surrogates,
// and keeps how a number was written.

/** A number as it stands in the text; `value` is set where it is a safe integer. */
export class Numeral {
  constructor(text) {
    this.text = text;
    const isInteger = /^-?(0|[1-9][0-9]*)$/.test(text) && text !== '-0';
    this.value = isInteger && Number.isSafeInteger(Number(text)) ? Number(text) : null;
  }
}

// The deepest nesting that is read at all; payloads may have 8, envelopes have 3.
const MAX_DEPTH = 64;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]+/y;
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/** Decode UTF-8 without a byte order mark. Throws on anything else. */
function decode(bytes) {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) throw new Error('byte order mark');
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
}

/**
 * Parse JSON from bytes. Objects come as Map, numbers as Numeral.
 * Throws an Error where the text is not strict JSON.
 */
export function parseJson(bytes) {
  const text = decode(bytes);
  let at = 0;

  const fail = (what) => {
    throw new Error(`${what} at character ${at}`);
  };
  const space = () => {
    while (at < text.length && ' \t\r\n'.includes(text[at])) at += 1;
  };
  const take = (char) => {
    if (text[at] !== char) fail(`expected ${char}`);
    at += 1;
  };

  function string() {
    take('"');
    let value = '';
    for (;;) {
      PLAIN.lastIndex = at;
      const plain = PLAIN.exec(text);
      if (plain) {
        value += plain[0];
        at += plain[0].length;
      }
      const char = text[at];
      if (char === '"') break;
      if (char !== '\\') fail('a control character or the end inside a string');
      at += 1;
      const escape = text[at];
      if (escape === 'u') {
        const digits = text.slice(at + 1, at + 5);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail('bad escape');
        value += String.fromCharCode(parseInt(digits, 16));
        at += 5;
      } else if (Object.hasOwn(ESCAPES, escape ?? '')) {
        value += ESCAPES[escape];
        at += 1;
      } else {
        fail('bad escape');
      }
    }
    at += 1;
    // In a regular expression with the u flag, only a lone surrogate is a surrogate.
    if (/[\ud800-\udfff]/u.test(value)) fail('half of a surrogate pair');
    return value;
  }

  function number() {
    NUMBER.lastIndex = at;
    const found = NUMBER.exec(text);
    if (!found) fail('no JSON value');
    at += found[0].length;
    return new Numeral(found[0]);
  }

  function object(depth) {
    const value = new Map();
    take('{');
    space();
    if (text[at] === '}') {
      at += 1;
      return value;
    }
    for (;;) {
      space();
      const key = string();
      if (value.has(key)) fail('the same key twice');
      space();
      take(':');
      value.set(key, any(depth + 1));
      space();
      if (text[at] === '}') break;
      take(',');
    }
    at += 1;
    return value;
  }

  function array(depth) {
    const value = [];
    take('[');
    space();
    if (text[at] === ']') {
      at += 1;
      return value;
    }
    for (;;) {
      value.push(any(depth + 1));
      space();
      if (text[at] === ']') break;
      take(',');
    }
    at += 1;
    return value;
  }

  function any(depth) {
    if (depth > MAX_DEPTH) fail('nested too deeply');
    space();
    const char = text[at];
    if (char === '{') return object(depth);
    if (char === '[') return array(depth);
    if (char === '"') return string();
    for (const [word, value] of [['true', true], ['false', false], ['null', null]]) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return value;
      }
    }
    return number();
  }

  const value = any(1);
  space();
  if (at !== text.length) fail('something follows the value');
  return value;
}
