// The shape of every payload. A rule is a function that throws where a value breaks it.

import { publicKeyFrom, keyIdOf } from './keys.mjs';

export class SchemaError extends Error {}

const need = (condition, what) => {
  if (!condition) throw new SchemaError(what);
};

const pattern = (regexp) => (value) =>
  // JavaScript's $ without the m flag matches at the very end alone.
  need(typeof value === 'string' && regexp.test(value), `${value} is not ${regexp}`);
const integer = (lowest) => (value) =>
  need(Number.isSafeInteger(value) && value >= lowest, `${value} is not an integer >= ${lowest}`);
const boolean = (value) => need(typeof value === 'boolean', 'a boolean is wanted');
const oneOf = (...allowed) => (value) => need(allowed.includes(value), `${value} is not allowed`);
const arrayOf = (rule) => (value) => {
  need(Array.isArray(value), 'an array is wanted');
  value.forEach(rule);
};
const sortedBy = (rule, key) => (value) => {
  arrayOf(rule)(value);
  for (let i = 1; i < value.length; i += 1) {
    need(key(value[i - 1]) < key(value[i]), 'not sorted, or something stands twice');
  }
};
const name = (value) =>
  need(typeof value === 'string' && Buffer.byteLength(value) <= 200, 'more than 200 bytes');

/** An object with exactly these fields; a field whose name ends in ? may be missing. */
const object = (fields, check = () => {}) => {
  const known = new Map();
  const required = [];
  for (const [key, rule] of Object.entries(fields)) {
    const bare = key.replace('?', '');
    known.set(bare, rule);
    if (bare === key) required.push(key);
  }
  return (value) => {
    need(isObject(value), 'an object is wanted');
    for (const key of required) need(key in value, `${key} is missing`);
    for (const key of Object.keys(value)) {
      need(known.has(key), `${key} is unknown`);
      known.get(key)(value[key]);
    }
    check(value);
  };
};
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

const id = (prefix) => pattern(new RegExp(`^${prefix}_[0-7][0-9A-HJKMNP-TV-Z]{25}$`));
const token = pattern(/^[a-z0-9][a-z0-9_.-]{0,63}$/);
const fingerprint = pattern(/^[A-Za-z0-9._:-]{8,128}$/);
const sha256 = pattern(/^[0-9a-f]{64}$/);
const time = integer(0);
const count = integer(0);
const positive = integer(1);
const host = /^https?:\/\/(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?$/;
const origin = (value) => {
  pattern(host)(value);
  const isDefault = /^http:.*:80$|^https:.*:443$/.test(value);
  need(value.length <= 267 && !isDefault, 'no default port, no longer than a host name');
};
const ZERO = '0'.repeat(64);

/** What every payload has. `crit` names facts of `ext` that must be understood: we know none. */
const common = (typ, iss) => ({
  typ: oneOf(typ),
  iss,
  issued_at: time,
  'ext?': (value) => need(isObject(value), 'ext is an object'),
  'crit?': () => need(false, 'crit names a fact that is not understood'),
});
const vendor = (typ) => ({ ...common(typ, name), product: token });
const instance = (typ) => ({
  ...common(typ, oneOf('instance')),
  aud: origin,
  request_id: id('req'),
});

const limits = object(
  {
    'tokens_per_window?': positive,
    'window_s?': positive,
    'max_concurrency?': positive,
    'max_instances?': positive,
    'max_seats?': positive,
  },
  (it) => need('tokens_per_window' in it === 'window_s' in it, 'half of a window'),
);
const budget = object(
  { budget_id: id('bud'), tokens_total: count, 'carry_over_from?': id('bud') },
  (it) => need(it.carry_over_from !== it.budget_id, 'a budget carries over from itself'),
);
const features = sortedBy(token, (it) => it);

const license = object(
  {
    ...vendor('license.v1'),
    license_id: id('lic'),
    deployment_id: id('dep'),
    revision: positive,
    'supersedes?': id('lic'),
    customer_id: id('cus'),
    'customer_name?': name,
    sku: token,
    mode: oneOf('offline', 'lease'),
    not_before_at: time,
    expires_at: time,
    'grace_s?': count,
    features,
    limits,
    'budget?': budget,
    binding: object({ fingerprints: sortedBy(fingerprint, (it) => it) }),
    'support_tier?': token,
    'lease?': object({ url: origin, ttl_s: positive, grace_s: count }),
    revocation: object({ require_current_bundle: boolean, min_version: count }),
    min_keyset_version: count,
  },
  (it) => {
    need(it.not_before_at < it.expires_at, 'it ends before it begins');
    need(it.supersedes !== it.license_id, 'it supersedes itself');
    need((it.mode === 'lease') === 'lease' in it, 'lease stands exactly with mode lease');
  },
);

const lease = object(
  {
    ...vendor('lease.v1'),
    lease_id: id('lea'),
    deployment_id: id('dep'),
    license_id: id('lic'),
    license_revision: positive,
    license_sha256: sha256,
    customer_id: id('cus'),
    instance_id: id('ins'),
    instance_keyid: sha256,
    'fingerprint?': fingerprint,
    epoch: positive,
    seq: positive,
    prev_sha256: sha256,
    request_id: id('req'),
    request_sha256: sha256,
    status: oneOf('active', 'suspended', 'revoked', 'superseded', 'ended'),
    'reason?': token,
    'superseded_by?': id('lic'),
    'features?': features,
    'limits?': limits,
    'budget?': budget,
    expires_at: time,
    grace_until_at: time,
    renew_at: (value) => {
      arrayOf(time)(value);
      need(value.length === 2 && value[0] <= value[1], 'renew_at is earliest, latest');
    },
    bundle_version: count,
    keyset_version: count,
    'clone_warning?': oneOf(true),
  },
  (it) => {
    need(it.expires_at <= it.grace_until_at, 'grace ends before the lease');
    const first = it.epoch === 1 && it.seq === 1;
    need(!first || it.prev_sha256 === ZERO, 'the first lease follows nothing');
    need(!('superseded_by' in it) || it.status === 'superseded', 'superseded_by without its status');
  },
);

const bundle = object(
  {
    ...vendor('revocation-bundle.v1'),
    version: positive,
    expires_at: time,
    entries: sortedBy(
      object({
        license_id: id('lic'),
        status: oneOf('revoked', 'suspended', 'superseded'),
        effective_at: time,
        reason: oneOf('replaced', 'withdrawn', 'on-hold', 'key-compromise'),
        'superseded_by?': id('lic'),
      }),
      (it) => it.license_id,
    ),
  },
  (it) => {
    need(it.issued_at < it.expires_at, 'it ends before it begins');
    need(it.version >= it.issued_at, 'a version is never below issued_at');
  },
);

const root = { keyid: sha256, alg: oneOf('ed25519'), public_key: publicKeyFrom };
const keyset = object(
  {
    ...vendor('keyset.v1'),
    version: positive,
    expires_at: time,
    prev_sha256: sha256,
    root_threshold: positive,
    roots: arrayOf(object(root)),
    keys: arrayOf(
      object(
        {
          ...root,
          role: oneOf('license', 'lease', 'revocation'),
          status: oneOf('active', 'retired', 'compromised'),
          not_before_at: time,
          not_after_at: time,
        },
        (it) => need(it.not_before_at < it.not_after_at, "a key's window is empty"),
      ),
    ),
  },
  (it) => {
    need(it.root_threshold <= it.roots.length, 'more signatures asked for than there are roots');
    need(it.issued_at < it.expires_at, 'it ends before it begins');
    need((it.version === 1) === (it.prev_sha256 === ZERO), 'version 1 alone follows nothing');
    const seen = new Set();
    for (const key of [...it.roots, ...it.keys]) {
      need(keyIdOf(Buffer.from(key.public_key, 'base64')) === key.keyid, 'not the key id of its key');
      need(!seen.has(key.public_key), 'a public key stands twice');
      seen.add(key.public_key);
    }
  },
);

const enrollment = object({
  ...instance('enrollment-request.v1'),
  code: pattern(/^[0-9A-Za-z_-]{22,64}$/),
  public_key: publicKeyFrom,
  'fingerprint?': fingerprint,
  'label?': name,
  software: pattern(/^[ -~]{1,64}$/),
  license_id: id('lic'),
  license_sha256: sha256,
});

const leaseRequest = object({
  ...instance('lease-request.v1'),
  license_id: id('lic'),
  license_sha256: sha256,
  instance_id: id('ins'),
  'fingerprint?': fingerprint,
  prev_epoch: count,
  prev_seq: count,
  prev_sha256: sha256,
  boot_id: pattern(/^[0-9a-f]{32}$/),
  bundle_version: count,
  keyset_version: count,
  software: pattern(/^[ -~]{1,64}$/),
  'usage?': object({ budget_id: id('bud'), tokens_total: count, requests_total: count }),
});

const releaseRequest = object({
  ...instance('release-request.v1'),
  instance_id: id('ins'),
  lease_id: id('lea'),
});

/** By kind: a function that throws where a payload breaks the rules of its kind. */
export const SCHEMAS = {
  license,
  lease,
  'revocation-bundle': bundle,
  keyset,
  'enrollment-request': enrollment,
  'lease-request': leaseRequest,
  'release-request': releaseRequest,
};
