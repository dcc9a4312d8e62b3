// Verify every vector: `node run.mjs DIRECTORY`.
//
// Prints the tc_id of each test that came out otherwise, then one summary line; exits 1 on failures.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import {
  Refusal,
  verifyBundle,
  verifyKeyset,
  verifyKeysetUpdate,
  verifyLease,
  verifyLicense,
  verifyRequest,
} from './verify.mjs';

const bytes = (text) => Buffer.from(text, 'base64');

/** Verify a test's document as its options say. */
function verify(keysetFile, test) {
  const { now_at: at, options } = test;
  const file = bytes(test.envelope_b64);
  const { kind } = options;
  if (kind === 'keyset') {
    if (!options.update) return verifyKeyset(file, at);
    const steps = (options.steps_b64 ?? []).map(bytes);
    return verifyKeysetUpdate(file, verifyKeyset(keysetFile, at), at, steps);
  }
  if (kind === 'enrollment-request') return verifyRequest(kind, file);
  if (kind.endsWith('-request')) return verifyRequest(kind, file, options.public_key_b64);

  const keyset = verifyKeyset(keysetFile, at);
  const asked = {
    fingerprint: options.fingerprint,
    floors: options.floors,
    bundle: options.bundle_b64 === undefined ? undefined : bytes(options.bundle_b64),
    requireCurrentBundle: options.require_current_bundle ?? false,
    instanceKeyid: options.instance_keyid,
    license: options.license_b64 === undefined ? undefined : bytes(options.license_b64),
    periods: options.periods,
  };
  if (kind === 'license') return verifyLicense(file, keyset, at, asked);
  if (kind === 'lease') return verifyLease(file, keyset, at, asked);
  return verifyBundle(file, keyset, at, asked);
}

/** `valid`, or the code of the refusal. Anything but a Refusal is a mistake of the verifier. */
function outcome(keysetFile, test) {
  try {
    verify(keysetFile, test);
    return 'valid';
  } catch (error) {
    return error instanceof Refusal ? error.code : `crash: ${error.stack}`;
  }
}

const directory = process.argv[2];
let count = 0;
let failures = 0;
for (const name of readdirSync(directory).filter((each) => each.endsWith('.json')).sort()) {
  const { groups } = JSON.parse(readFileSync(join(directory, name), 'utf8'));
  for (const group of groups ?? []) {
    for (const test of group.tests) {
      count += 1;
      const expected = test.code ?? 'valid';
      const found = outcome(bytes(group.keyset_b64), test);
      if (found === expected) continue;
      failures += 1;
      console.log(`${test.tc_id}: ${found}, not ${expected}`);
    }
  }
}
console.log(`node: ${count} tests, ${failures} failed`);
process.exitCode = failures > 0 || count === 0 ? 1 : 0;
