// Restricted canonical JSON: one way to write every payload.

import { Numeral, parseJson } from './json.mjs';

const MAX_DEPTH = 8;
const MAY_BE_EMPTY = new Set(['features', 'fingerprints', 'limits', 'entries', 'ext']);

// Keys are ASCII, so that JavaScript's order by UTF-16 unit is the order by code point.
const KEY = /^[a-z][a-z0-9_]*$/;
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f]/;

const isEmpty = (value) =>
  (Array.isArray(value) && value.length === 0) || (value instanceof Map && value.size === 0);

/** Write a value parsed by `parseJson` again. Throws where the restricted profile forbids it. */
function write(value, depth) {
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'string') {
    if (value === '' || FORBIDDEN.test(value)) throw new Error('an empty or forbidden string');
    return `"${value.replace(/["\\]/g, '\\$&')}"`;
  }
  if (value instanceof Numeral) {
    if (value.value === null) throw new Error(`the number ${value.text}`);
    return String(value.value);
  }
  if (value === null) throw new Error('null');
  if (depth > MAX_DEPTH) throw new Error('nested too deeply');
  if (Array.isArray(value)) {
    if (value.some(isEmpty)) throw new Error('an empty array or object');
    return `[${value.map((item) => write(item, depth + 1)).join(',')}]`;
  }
  const members = [...value.keys()].sort().map((key) => {
    if (!KEY.test(key)) throw new Error(`the key ${key}`);
    const item = value.get(key);
    if (isEmpty(item) && !MAY_BE_EMPTY.has(key)) throw new Error(`${key} is empty`);
    return `"${key}":${write(item, depth + 1)}`;
  });
  return `{${members.join(',')}}`;
}

/** Turn Map into Object and Numeral into number, once all have been found right. */
function plain(value) {
  if (value instanceof Numeral) return value.value;
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) {
    const object = Object.create(null);
    for (const [key, item] of value) object[key] = plain(item);
    return object;
  }
  return value;
}

/** Parse a payload; throws unless writing it again gives the same bytes. */
export function parsePayload(bytes) {
  const value = parseJson(bytes);
  if (!(value instanceof Map)) throw new Error('not an object');
  if (!Buffer.from(write(value, 1), 'utf8').equals(bytes)) throw new Error('not canonical');
  return plain(value);
}
