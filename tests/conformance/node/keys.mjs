// Strict base64, Ed25519 public keys and key ids.

import { createHash, createPublicKey, verify } from 'node:crypto';

const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const P = 2n ** 255n - 19n;
const D = mod(-121665n * power(121666n, P - 2n));
const ORDER_8 = little(
  Buffer.from('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', 'hex'),
);
/** The y coordinates of the eight points of small order; they occur with either sign. */
const SMALL_ORDER = new Set([0n, 1n, P - 1n, ORDER_8, P - ORDER_8]);

function mod(number) {
  return ((number % P) + P) % P;
}

function power(base, exponent) {
  let result = 1n;
  for (let square = mod(base), rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = mod(result * square);
    square = mod(square * square);
  }
  return result;
}

function little(bytes) {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
}

/** Decode standard base64 with padding. Node passes over what is foreign, so encode it again. */
export function decodeBase64(text) {
  if (typeof text !== 'string') throw new Error('base64 is a string');
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) throw new Error('not strict base64');
  return bytes;
}

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** The key id of a raw public key: SHA-256 of its SubjectPublicKeyInfo in DER. */
export const keyIdOf = (raw) => sha256(Buffer.concat([SPKI_PREFIX, raw]));

/** Take a public key from base64; throws unless it is canonical, a point, and of large order. */
export function publicKeyFrom(text) {
  const raw = decodeBase64(text);
  if (raw.length !== 32) throw new Error('a public key has 32 bytes');
  const y = little(raw) & (2n ** 255n - 1n);
  if (y >= P) throw new Error('a public key is not in canonical form');
  if (SMALL_ORDER.has(y)) throw new Error('a public key is of small order');
  // x^2 = (y^2 - 1) / (d y^2 + 1) must have a root (RFC 8032, section 5.1.3).
  if (power((y * y - 1n) * (D * y * y + 1n), (P - 1n) / 2n) !== 1n) {
    throw new Error('a public key is not a point of the curve');
  }
  return raw;
}

/** Say whether `signature` is this raw key's over `message`. */
export function isSignedBy(raw, message, signature) {
  const der = Buffer.concat([SPKI_PREFIX, raw]);
  return verify(null, message, createPublicKey({ key: der, format: 'der', type: 'spki' }), signature);
}
