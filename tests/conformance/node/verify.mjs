// A complete verifier of the signed documents, with the standard library of Node alone.
//
// Every function throws a Refusal whose `code` is the first of the fixed order that fails. Nothing
// here reads a clock: `at` is Unix time in seconds.

import { parsePayload } from './canonical.mjs';
import { parseJson } from './json.mjs';
import { decodeBase64, isSignedBy, keyIdOf, publicKeyFrom, sha256 } from './keys.mjs';
import { SCHEMAS } from './schema.mjs';

const PRODUCT = 'genai-smart-router';
const CLOCK_TOLERANCE_S = 300;
const MAX_SIGNATURES = 8;
const MAX_BYTES = { keyset: 1024 * 1024, 'revocation-bundle': 16 * 1024 * 1024 };
const ROLES = { license: 'license', lease: 'lease', 'revocation-bundle': 'revocation' };

export class Refusal extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

function need(condition, code) {
  if (!condition) throw new Refusal(code);
}

/** Do it, and turn whatever goes wrong into one code. */
function or(code, action) {
  try {
    return action();
  } catch {
    throw new Refusal(code);
  }
}

const hasExactly = (value, keys) =>
  value instanceof Map && value.size === keys.length && keys.every((key) => value.has(key));

/** Rows 1 and 2: the envelope, of the kind asked for. */
function open(kind, file) {
  const bad = 'malformed-envelope';
  need(file.length <= (MAX_BYTES[kind] ?? 16 * 1024), bad);
  const value = or(bad, () => parseJson(file));
  need(hasExactly(value, ['payload', 'payloadType', 'signatures']), bad);
  const type = value.get('payloadType');
  const listed = value.get('signatures');
  need(typeof type === 'string' && Array.isArray(listed), bad);
  need(listed.length >= 1 && listed.length <= MAX_SIGNATURES, bad);
  const signatures = listed.map((item) => {
    need(hasExactly(item, ['keyid', 'sig']), bad);
    const keyid = item.get('keyid');
    need(typeof keyid === 'string' && /^[0-9a-f]{64}$/.test(keyid), bad);
    const sig = or(bad, () => decodeBase64(item.get('sig')));
    need(sig.length === 64, bad);
    return { keyid, sig };
  });
  need(new Set(signatures.map((each) => each.keyid)).size === signatures.length, bad);
  const payload = or(bad, () => decodeBase64(value.get('payload')));
  need(type === `application/vnd.metrum.${kind}.v1+json`, 'wrong-type');
  return { type, payload, signatures };
}

/** The signing input: DSSE's pre-authentication encoding. */
function signingInput({ type, payload }) {
  const head = `DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `;
  return Buffer.concat([Buffer.from(head, 'utf8'), payload]);
}

/** Row 5: the payload, in canonical form and of its schema. */
function parse(kind, payload) {
  return or('malformed-payload', () => {
    const document = parsePayload(payload);
    SCHEMAS[kind](document);
    return document;
  });
}

/** Rows 3 and 4: the entries of `keys` whose signature is right. */
function signers(envelope, keys) {
  const named = envelope.signatures
    .map(({ keyid, sig }) => ({ key: keys.find((key) => key.keyid === keyid), sig }))
    .filter(({ key }) => key !== undefined);
  need(named.length > 0, 'untrusted-key');
  const message = signingInput(envelope);
  const right = named.filter(({ key, sig }) =>
    isSignedBy(Buffer.from(key.public_key, 'base64'), message, sig),
  );
  need(right.length > 0, 'bad-signature');
  return right.map(({ key }) => key);
}

const counts = (key, issuedAt) =>
  key.status !== 'compromised' && key.not_before_at <= issuedAt && issuedAt < key.not_after_at;

function checkIssued(document, at) {
  need(document.issued_at <= at + CLOCK_TOLERANCE_S, 'not-yet-valid');
}

/** Rows 1 to 7 of a document that a key of the keyset signs. */
function verifySigned(kind, file, keyset) {
  const envelope = open(kind, file);
  const right = signers(
    envelope,
    keyset.keys.filter((key) => key.role === ROLES[kind]),
  );
  const document = parse(kind, envelope.payload);
  need(document.iss === keyset.iss, 'wrong-issuer');
  need(document.product === PRODUCT, 'wrong-product');
  need(right.some((key) => counts(key, document.issued_at)), 'key-not-valid');
  return Object.assign(document, { payload_sha256: sha256(envelope.payload) });
}

/** Verify a license file; see the vectors' schema for the options. */
export function verifyLicense(file, keyset, at, options = {}) {
  const license = verifySigned('license', file, keyset);
  const floors = options.floors ?? { revision: 0, bundle_version: 0, keyset_version: 0 };
  need(keyset.version >= license.min_keyset_version, 'keyset-too-old');
  checkIssued(license, at);
  need(license.not_before_at <= at, 'not-yet-valid');
  need(at < license.expires_at, 'expired');
  if (options.fingerprint !== undefined) {
    const allowed = license.binding.fingerprints;
    need(allowed.length === 0 || allowed.includes(options.fingerprint), 'wrong-instance');
  }
  need(license.revision >= floors.revision, 'rolled-back');
  need(keyset.version >= floors.keyset_version, 'rolled-back');
  checkRevocation(license, keyset, at, floors, options);
  return license;
}

/** Rows 12 and 13. */
function checkRevocation(license, keyset, at, floors, options) {
  const unusable = 'revocation-unusable';
  const { require_current_bundle: needsCurrent, min_version: minVersion } = license.revocation;
  if (options.bundle === undefined) {
    need(floors.bundle_version === 0, unusable);
    const needed = options.requireCurrentBundle || needsCurrent || minVersion > 0;
    need(!needed, 'revocation-required');
    return;
  }
  const bundle = or(unusable, () => verifyBundle(options.bundle, keyset, at));
  // An old or expired bundle still revokes.
  const entry = bundle.entries.find((each) => each.license_id === license.license_id);
  if (entry !== undefined && entry.effective_at <= at) throw new Refusal(entry.status);
  need(bundle.version >= Math.max(floors.bundle_version, minVersion), unusable);
  need(at < bundle.expires_at, unusable);
}

/**
 * Verify a lease as a document; it serves while `active` and before `grace_until_at`. Where a
 * license file is given too, the lease must keep within it.
 */
export function verifyLease(file, keyset, at, options = {}) {
  const lease = verifySigned('lease', file, keyset);
  checkIssued(lease, at);
  const expected = options.instanceKeyid ?? lease.instance_keyid;
  need(lease.instance_keyid === expected, 'wrong-instance');
  if (options.license !== undefined) {
    const license = verifyLicense(options.license, keyset, at);
    need(isWithin(lease, license, at, options.periods ?? {}), 'lease-rejected');
  }
  return lease;
}

const isNoMore = (given, most) => given === undefined || most === undefined || given <= most;

/**
 * Whether a lease grants no more than its license. `periods` says since when each period budget of
 * the deployment has been in use, by budget id. A lease for another license grants nothing.
 */
function isWithin(lease, license, at, periods) {
  if (lease.license_sha256 !== license.payload_sha256) return true;
  const ours = lease.limits ?? {};
  const most = license.limits;
  return (
    lease.grace_until_at <= license.expires_at &&
    (lease.features ?? []).every((each) => license.features.includes(each)) &&
    isNoMore(ours.tokens_per_window, most.tokens_per_window) &&
    // A shorter window lets more tokens through.
    isNoMore(most.window_s, ours.window_s) &&
    isNoMore(ours.max_concurrency, most.max_concurrency) &&
    isNoMore(ours.max_instances, most.max_instances) &&
    isNoMore(ours.max_seats, most.max_seats) &&
    (lease.budget === undefined || isBudgetWithin(lease.budget, license, at, periods))
  );
}

function isBudgetWithin(ours, license, at, periods) {
  const most = license.budget;
  const named = most?.carry_over_from;
  if (ours.carry_over_from !== undefined && ours.carry_over_from !== named) return false;
  if (most === undefined) return true;
  if (ours.tokens_total > most.tokens_total) return false;
  if (ours.budget_id === most.budget_id) return true;
  const period = license.ext?.budget_period_s;
  if (typeof period !== 'number' || period <= 0) return false;
  const began = Object.values(periods);
  if (began.length === 0 || Object.hasOwn(periods, ours.budget_id)) return true;
  return at >= Math.max(...began) + period;
}

/** Verify a revocation bundle. */
export function verifyBundle(file, keyset, at, options = {}) {
  const bundle = verifySigned('revocation-bundle', file, keyset);
  checkIssued(bundle, at);
  need(!options.requireCurrentBundle || at < bundle.expires_at, 'expired');
  need(bundle.version >= (options.floors?.bundle_version ?? 0), 'rolled-back');
  return bundle;
}

/** Verify a keyset under its own roots. An expired one still verifies. */
export function verifyKeyset(file, at) {
  return verifySuccessor(file, null, at);
}

/**
 * Verify a keyset that shall take the place of the held one. `steps` are the versions between, in
 * order; they may have expired, the last may not.
 */
export function verifyKeysetUpdate(file, held, at, steps = []) {
  const before = steps.reduce((current, step) => verifySuccessor(step, current, at), held);
  return verifySuccessor(file, before, at, true);
}

/**
 * Verify a keyset under its own roots and, where one is held, under the held keyset's roots too.
 * Its payload is read before its signatures, since it names the roots.
 */
function verifySuccessor(file, held, at, requireCurrent = false) {
  const envelope = open('keyset', file);
  const keyset = parse('keyset', envelope.payload);
  const own = signers(envelope, keyset.roots);
  const old = held === null ? [] : signers(envelope, held.roots);
  need(held === null || keyset.iss === held.iss, 'wrong-issuer');
  need(keyset.product === PRODUCT, 'wrong-product');
  need(own.length >= keyset.root_threshold, 'key-not-valid');
  need(held === null || old.length >= held.root_threshold, 'key-not-valid');
  checkIssued(keyset, at);
  if (held !== null) {
    need(!requireCurrent || at < keyset.expires_at, 'expired');
    need(keyset.version > held.version, 'rolled-back');
    const follows = keyset.version === held.version + 1;
    need(!follows || keyset.prev_sha256 === held.sha256, 'rolled-back');
  }
  return Object.assign(keyset, { sha256: sha256(envelope.payload) });
}

/** Verify what an instance signed. An enrollment brings its key; else `publicKey` is base64. */
export function verifyRequest(kind, file, publicKey = null) {
  const envelope = open(kind, file);
  need(envelope.signatures.length === 1, 'malformed-envelope');
  const brought = publicKey === null ? parse(kind, envelope.payload).public_key : publicKey;
  const keyid = keyIdOf(publicKeyFrom(brought));
  signers(envelope, [{ keyid, public_key: brought }]);
  return parse(kind, envelope.payload);
}
