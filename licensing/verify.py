"""Verification in a fixed order, one code each. No clock, no I/O: `at` and every byte are given.

The order, by the table of the signed documents; the first failure decides:

1.  size, UTF-8, JSON, envelope shape, base64 - `malformed-envelope`
2.  the payload type is the one asked for - `wrong-type`
3.  C = signatures by keys of the keyset with the right role, whatever their status;
    none - `untrusted-key`
4.  G = those of C that verify; none - `bad-signature`
5.  restricted JSON, schema, `typ`, `crit` - `malformed-payload`
6.  issuer - `wrong-issuer`; product - `wrong-product`
7.  V = those of G whose key was not compromised and whose window holds `issued_at`;
    none - `key-not-valid`
8.  `min_keyset_version` - `keyset-too-old`
9.  `issued_at` and `not_before_at` not after `at` (300 s allowed on `issued_at`) -
    `not-yet-valid`; `at` before `expires_at` - `expired`
10. binding - `wrong-instance`
11. revision floor, then keyset version floor - `rolled-back`
12. an entry of the bundle, or a remembered one, in effect - `revoked`, `suspended`, `superseded`
13. a bundle needed and never seen - `revocation-required`; seen before or given, and now missing,
    older, expired, bad or below `min_version` - `revocation-unusable`

Nobody else decides a row. Whoever verifies passes in what it remembers (`Floors`) and what it asks
of bundles (`RevocationPolicy`), and takes a `Report` out.

Times are integer Unix seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from licensing.document import Document
from licensing.encoding import sha256_hex
from licensing.enrollment import EnrollmentRequest, InstanceDocument
from licensing.envelope import (
    MAX_BUNDLE_BYTES,
    MAX_BYTES,
    MAX_KEYSET_BYTES,
    Envelope,
    Signature,
)
from licensing.errors import (
    BadSignature,
    Expired,
    KeyNotValid,
    KeysetTooOld,
    LicensingError,
    MalformedEnvelope,
    NotYetValid,
    RevocationRequired,
    RevocationUnusable,
    Revoked,
    RolledBack,
    Superseded,
    Suspended,
    UntrustedKey,
    WrongInstance,
    WrongIssuer,
    WrongProduct,
    WrongType,
)
from licensing.keys import Keyset, PublicKey
from licensing.lease import Lease
from licensing.license import License
from licensing.names import DEFAULT_ISSUER, PRODUCT
from licensing.revocation import NO_BUNDLE, BundleMemory, RevocationBundle, RevocationEntry

CLOCK_TOLERANCE_S: Final = 300
"""How far `issued_at` may lie in the verifier's future."""

_REVOCATIONS: Final = {"revoked": Revoked, "suspended": Suspended, "superseded": Superseded}

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound=InstanceDocument)
S = TypeVar("S", License, Lease, RevocationBundle)
T = TypeVar("T")


class VerifyingKey(Protocol):
    """A key that may be asked to verify."""

    def verify(self, sig: bytes, message: bytes, /) -> bool:
        """Say whether the signature is this key's."""
        ...


K = TypeVar("K", bound=VerifyingKey)


class TrustedKey(VerifyingKey, Protocol):
    """A key whose word counts for what was issued in some span of time."""

    def covers(self, issued_at: int, /) -> bool:
        """Say whether a document issued at this instant counts under this key."""
        ...


class Trust(Protocol):
    """What a verifier trusts: a keyset, or one approved key."""

    @property
    def issuer(self) -> str:
        """The issuer whose documents this trust is for."""
        ...

    @property
    def version(self) -> int | None:
        """The keyset's version; None where there is no keyset."""
        ...

    def find(self, keyid: str, role: str, /) -> TrustedKey | None:
        """Return the key of this id that may sign for this role."""
        ...


@dataclass(frozen=True)
class KeysetTrust:
    """Trust in the keys of a keyset that was itself verified."""

    keyset: Keyset

    @property
    def issuer(self) -> str:
        """The keyset's issuer."""
        return self.keyset.iss

    @property
    def version(self) -> int | None:
        """The keyset's version."""
        return self.keyset.version

    def find(self, keyid: str, role: str) -> TrustedKey | None:
        """Return the keyset's key of this id and role, whatever its status."""
        return self.keyset.find(keyid, role)


@dataclass(frozen=True)
class SingleKeyTrust:
    """Trust in one approved key for every role; it knows no windows and no compromise."""

    key: PublicKey
    issuer: str = DEFAULT_ISSUER
    version: int | None = None

    def find(self, keyid: str, _role: str) -> TrustedKey | None:
        """Return the key if it is the one named."""
        return self if keyid == self.key.keyid else None

    def verify(self, sig: bytes, message: bytes) -> bool:
        """Say whether the signature is the approved key's."""
        return self.key.verify(sig, message)

    def covers(self, _issued_at: int) -> bool:
        """Say yes: an approved key has no window."""
        return True


@dataclass(frozen=True)
class Verified(Generic[D]):
    """A document whose signature, schema, issuer and product were found right."""

    document: D
    envelope: Envelope
    keyids: tuple[str, ...]
    """The keys whose signatures counted, in the order of the envelope; of a keyset, the roots."""
    payload_sha256: str

    @property
    def keyid(self) -> str:
        """The first key whose signature counted."""
        return self.keyids[0]


@dataclass(frozen=True)
class Floors:
    """What was already in use here; 0 where nothing was."""

    revision: int = 0
    """Highest revision that served in this deployment."""
    keyset_version: int = 0
    """Highest version of this issuer's keyset ever in use."""
    bundle: BundleMemory = NO_BUNDLE
    """What is remembered of this issuer's revocation bundles."""


def nothing_seen(_deployment_id: str, _issuer: str) -> Floors:
    """Return the floors of a place where nothing was in use before."""
    return Floors()


@dataclass(frozen=True)
class RevocationPolicy:
    """What is asked of the revocation bundle here. A license can tighten it, never loosen it."""

    asked: bool = True
    """False: none is asked for; one that is at hand, or was seen before, still revokes."""
    fail_closed: bool = True
    """Whether one that cannot be used refuses the license; it is a warning otherwise."""
    require_current: bool = False

    def needs(self, license_: License) -> bool:
        """Say whether the license does not count without a bundle."""
        asks = license_.revocation
        return self.require_current or asks.require_current_bundle or asks.min_version > 0

    def closes(self, license_: License) -> bool:
        """Say whether a bundle that cannot be used refuses the license."""
        return (
            (self.asked and self.fail_closed)
            or self.require_current
            or license_.revocation.require_current_bundle
        )


@dataclass(frozen=True)
class Check:
    """One answered question of a row: `error` is None where the answer is good."""

    row: int
    name: str
    error: LicensingError | None = None

    @property
    def code(self) -> str | None:
        """The code of the failure, if it is one."""
        return None if self.error is None else self.error.code


@dataclass(frozen=True)
class Report:
    """All that could be found out about a license file."""

    verified: Verified[License] | None = None
    """Set when rows 1 to 7 hold, whatever the later rows say."""
    checks: tuple[Check, ...] = ()
    """Every check that could be answered, in order."""
    bundle: RevocationBundle | None = None
    """Of those at hand, the highest version that verifies."""
    bundle_keyids: tuple[str, ...] = ()
    """The keys that vouch for that bundle."""
    memory: BundleMemory = NO_BUNDLE
    """What is known of the issuer's bundles with those at hand."""
    warning: LicensingError | None = None
    """Why the bundle cannot be used, where policy and license let that pass."""
    ends: tuple[tuple[int, str], ...] = ()
    """When a license that counts now no longer will: instants (Unix time), each with its code."""

    @property
    def error(self) -> LicensingError | None:
        """The failure that decides; None for a valid license."""
        return next((check.error for check in self.checks if check.error), None)

    @property
    def fits(self) -> bool:
        """Whether rows 1 to 10 hold: all that is asked of the license alone, here and now."""
        return self.verified is not None and not any(
            check.error for check in self.checks if check.row <= 10
        )

    @property
    def also(self) -> tuple[Check, ...]:
        """The checks after the one that decides."""
        for index, check in enumerate(self.checks):
            if check.error:
                return self.checks[index + 1 :]
        return ()

    def require(self, last_row: int = 13) -> Verified[License]:
        """Return the license, if the rows up to this one hold.

        Raises:
            LicensingError: the first that does not.
        """
        for check in self.checks:
            if check.error is not None and check.row <= last_row:
                raise check.error
        assert self.verified is not None
        return self.verified


def _check_type(envelope: Envelope, model: type[Document]) -> None:
    """Row 2."""
    if envelope.payload_type != model.PAYLOAD_TYPE:
        raise WrongType(f"the payload type is {envelope.payload_type}, not {model.PAYLOAD_TYPE}")


def _open(data: bytes, model: type[Document], max_bytes: int = MAX_BYTES) -> Envelope:
    """Rows 1 and 2."""
    envelope = Envelope.parse(data, max_bytes=max_bytes)
    _check_type(envelope, model)
    return envelope


def _good_signatures(
    envelope: Envelope, find: Callable[[str], K | None], what: str
) -> list[tuple[str, K]]:
    """Rows 3 and 4: the keys whose signatures verify, each with its id."""
    counted = [
        (signature, key)
        for signature in envelope.signatures
        if (key := find(signature.keyid)) is not None
    ]
    if not counted:
        named = ", ".join(signature.keyid for signature in envelope.signatures)
        raise UntrustedKey(f"no trusted {what} among the signers: {named}")
    message = envelope.signing_input()
    good = [(each.keyid, key) for each, key in counted if key.verify(each.sig, message)]
    if not good:
        raise BadSignature(f"no signature of a trusted {what} fits the content")
    return good


def _signers(envelope: Envelope, trust: Trust, role: str) -> list[tuple[str, TrustedKey]]:
    return _good_signatures(envelope, lambda keyid: trust.find(keyid, role), f"{role} key")


def _check_origin(document: License | Lease | RevocationBundle | Keyset, issuer: str) -> None:
    """Row 6."""
    if document.iss != issuer:
        raise WrongIssuer(f"issued by {document.iss}, while the keys are {issuer}'s")
    if document.product != PRODUCT:
        raise WrongProduct(f"for {document.product}, not {PRODUCT}")


def _valid_keyids(good: list[tuple[str, TrustedKey]], issued_at: int) -> tuple[str, ...]:
    """Row 7: the signers that count."""
    valid = tuple(keyid for keyid, key in good if key.covers(issued_at))
    if not valid:
        raise KeyNotValid("the signing key is compromised or was not valid at issued_at")
    return valid


def _verify_signed(
    data: bytes, model: type[S], role: str, trust: Trust, max_bytes: int = MAX_BYTES
) -> Verified[S]:
    """Rows 1 to 7 for a document a keyset key signs."""
    envelope = _open(data, model, max_bytes)
    good = _signers(envelope, trust, role)
    document = model.parse(envelope.payload)
    _check_origin(document, trust.issuer)
    keyids = _valid_keyids(good, document.issued_at)
    return Verified(document, envelope, keyids, sha256_hex(envelope.payload))


def _check_issued(document: Document, at: int) -> None:
    if document.issued_at > at + CLOCK_TOLERANCE_S:
        raise NotYetValid("issued_at lies in the future; check this machine's clock")


def _check_keyset(trust: Trust, needed: int) -> None:
    """Row 8; one approved key has no version to compare."""
    if trust.version is not None and trust.version < needed:
        raise KeysetTooOld(f"the keyset has version {trust.version}; {needed} is needed")


def _check_time(license_: License, at: int) -> None:
    """Row 9."""
    _check_issued(license_, at)
    if license_.not_before_at > at:
        raise NotYetValid(f"valid in {license_.not_before_at - at} s, from not_before_at on")
    if at >= license_.expires_at:
        raise Expired(f"expired {at - license_.expires_at} s ago")


def _check_binding(license_: License, fingerprint: str) -> None:
    """Row 10."""
    allowed = license_.binding.fingerprints
    if allowed and fingerprint not in allowed:
        raise WrongInstance("this instance's fingerprint is not among the license's")


def _check_floor(what: str, value: int | None, floor: int) -> None:
    """Row 11; what has no number is not compared."""
    if value is not None and value < floor:
        raise RolledBack(f"{what} {value}; {floor} was in use here")


def _check_entry(entry: RevocationEntry | None, at: int) -> None:
    """Row 12: refuse when an entry is in effect."""
    if entry is not None and entry.effective_at <= at:
        successor = f"; the successor is {entry.superseded_by}" if entry.superseded_by else ""
        raise _REVOCATIONS[entry.status](f"reason: {entry.reason}{successor}")


def _read_bundles(
    files: Sequence[bytes], trust: Trust, at: int, memory: BundleMemory, license_id: str
) -> tuple[Verified[RevocationBundle] | None, LicensingError | None, BundleMemory]:
    """Return the highest version that verifies, else why there is none; and what is known then."""
    best: Verified[RevocationBundle] | None = None
    error: LicensingError | None = None
    for data in files:
        try:
            verified = verify_bundle(data, trust, at, require_current=False)
        except LicensingError as failure:
            error = error or failure
            continue
        bundle = verified.document
        memory = memory.seen(bundle, sha256_hex(data), license_id)
        if best is None or bundle.version > best.document.version:
            best = verified
    return best, error if best is None else None, memory


def _check_bundle(
    bundle: RevocationBundle | None,
    error: LicensingError | None,
    floor: int,
    license_: License,
    at: int,
    policy: RevocationPolicy,
) -> LicensingError | None:
    """Row 13. Return why the bundle cannot be used where policy and license let that pass."""
    needed, least = policy.needs(license_), license_.revocation.min_version
    if not policy.asked and not needed:
        return None
    if error is not None:
        problem = f"{error.code}: {error.detail}"
    elif bundle is None and floor == 0:
        if needed:
            raise RevocationRequired("a current revocation bundle is needed; none was given")
        return None
    elif bundle is None:
        problem = "the bundle that was here before is missing"
    elif bundle.version < floor:
        problem = f"version {bundle.version} is older than {floor}, seen before"
    elif bundle.version < least:
        problem = f"version {bundle.version}; the license asks for {least}"
    elif at >= bundle.expires_at:
        problem = f"the bundle expired {at - bundle.expires_at} s ago"
    else:
        return None
    if policy.closes(license_):
        raise RevocationUnusable(problem)
    return RevocationUnusable(problem)


def examine_license(
    data: bytes,
    trust: Trust,
    at: int,
    *,
    fingerprint: str | None = None,
    floors: Callable[[str, str], Floors] = nothing_seen,
    bundles: Sequence[bytes] = (),
    policy: RevocationPolicy = RevocationPolicy(),
) -> Report:
    """Answer every check that can be answered about a license file.

    `fingerprint` is this instance's; empty where it has none, None to leave the binding unasked.
    `floors` tells, by deployment id and issuer, what was in use here before. Of several `bundles`,
    the highest version that verifies counts.
    """
    checks: list[Check] = []

    def ask(row: int, name: str, question: Callable[[], T]) -> T | None:
        try:
            answer = question()
        except LicensingError as error:
            checks.append(Check(row, name, error))
            return None
        checks.append(Check(row, name))
        return answer

    envelope = ask(1, "envelope", lambda: _open(data, License))
    if envelope is None:
        return Report(checks=tuple(checks))
    good = ask(3, "signature", lambda: _signers(envelope, trust, "license"))
    license_ = ask(5, "payload", lambda: License.parse(envelope.payload))
    if license_ is None:
        return Report(checks=tuple(checks))
    ask(6, "origin", lambda: _check_origin(license_, trust.issuer))
    keyids = ask(7, "key", lambda: _valid_keyids(good, license_.issued_at)) if good else None
    verified = None
    if keyids is not None and all(check.error is None for check in checks):
        verified = Verified(license_, envelope, keyids, sha256_hex(envelope.payload))
    ask(8, "keyset", lambda: _check_keyset(trust, license_.min_keyset_version))
    ask(9, "time", lambda: _check_time(license_, at))
    if fingerprint is not None:
        ask(10, "binding", lambda: _check_binding(license_, fingerprint))

    seen = floors(license_.deployment_id, license_.iss)
    keys = "the keyset has version"
    ask(11, "revision", lambda: _check_floor("revision", license_.revision, seen.revision))
    ask(11, "keyset-floor", lambda: _check_floor(keys, trust.version, seen.keyset_version))

    ours, floor = license_.license_id, seen.bundle.version
    best, unread, memory = _read_bundles(bundles, trust, at, seen.bundle, ours)
    bundle = None if best is None else best.document
    entry = memory.entries.get(ours)
    if bundle is not None or entry is not None:
        ask(12, "revocation", lambda: _check_entry(entry, at))
    warning = ask(13, "bundle", lambda: _check_bundle(bundle, unread, floor, license_, at, policy))

    ends = [(license_.expires_at, "expired")]
    if entry is not None:
        ends.append((entry.effective_at, entry.status))
    if bundle is not None and policy.closes(license_):
        ends.append((bundle.expires_at, "revocation-unusable"))
    keyids = () if best is None else best.keyids
    return Report(verified, tuple(checks), bundle, keyids, memory, warning, tuple(ends))


def verify_license(
    data: bytes, trust: Trust, at: int, *, fingerprint: str | None = None
) -> Verified[License]:
    """Verify a license file where nothing else is known: no floors and no revocation bundle.

    Raises:
        LicensingError: the first failure in the order of this module.
    """
    return examine_license(data, trust, at, fingerprint=fingerprint).require()


def verify_lease(
    data: bytes, trust: Trust, at: int, *, instance_keyid: str | None = None
) -> Verified[Lease]:
    """Verify a lease as a document; whether it still serves is `Lease.serves`.

    Raises:
        LicensingError: rows 1 to 7; `not-yet-valid` when issued in the future; `wrong-instance`
            when it is another instance's.
    """
    verified = _verify_signed(data, Lease, "lease", trust)
    _check_issued(verified.document, at)
    if instance_keyid is not None and verified.document.instance_keyid != instance_keyid:
        raise WrongInstance("the lease belongs to another instance's key")
    return verified


def verify_bundle(
    data: bytes, trust: Trust, at: int, *, floor: int = 0, require_current: bool = True
) -> Verified[RevocationBundle]:
    """Verify a revocation bundle.

    Raises:
        LicensingError: rows 1 to 7; `not-yet-valid`; `expired` when it must be current; and
            `rolled-back` below `floor`, the highest version seen.
    """
    verified = _verify_signed(data, RevocationBundle, "revocation", trust, MAX_BUNDLE_BYTES)
    bundle = verified.document
    _check_issued(bundle, at)
    if require_current and at >= bundle.expires_at:
        raise Expired(f"the bundle expired {at - bundle.expires_at} s ago")
    _check_floor("version", bundle.version, floor)
    return verified


def verify_keyset(data: bytes, at: int, *, held: Keyset | None = None) -> Verified[Keyset]:
    """Verify a keyset under its own roots, as a source checkout trusts the one it is given.

    The roots of a `held` keyset must have signed it as well, where there is one. An expired keyset
    still verifies: it warns and stops updates, it never stops service.

    Raises:
        LicensingError: rows 1 to 7, with the roots and their threshold in place of role and window;
            the payload comes before its signatures, since it names the roots. `not-yet-valid` when
            issued in the future.
    """
    envelope = _open(data, Keyset, MAX_KEYSET_BYTES)
    keyset = Keyset.parse(envelope.payload)
    judges = (keyset,) if held is None else (keyset, held)
    good = [_good_signatures(envelope, each.roots_by_keyid.get, "root") for each in judges]
    _check_origin(keyset, judges[-1].iss)
    for judge, signers in zip(judges, good, strict=True):
        # Row 7 for roots. Key ids are distinct in an envelope, public keys in a keyset.
        if len(signers) < judge.root_threshold:
            raise KeyNotValid(f"{len(signers)} roots signed; {judge.root_threshold} are needed")
    _check_issued(keyset, at)
    roots = tuple(keyid for keyid, _ in good[0])
    return Verified(keyset, envelope, roots, sha256_hex(envelope.payload))


def verify_keyset_update(
    data: bytes,
    held: Verified[Keyset],
    at: int,
    *,
    steps: Sequence[bytes] = (),
    require_current: bool = True,
) -> Verified[Keyset]:
    """Verify a keyset that shall take the place of the held one.

    It must be signed by the held *and* by its own threshold of roots, and have a higher version.
    `steps` are the versions between, in order, where the roots changed: each must succeed the one
    before in the same way, and may have expired since, which the last alone may not. One that was
    taken up before stays in use when it expires: `require_current=False` reads it again.

    Raises:
        LicensingError: as `verify_keyset`, for both thresholds; `wrong-issuer`; `expired`;
            `rolled-back` when the version is not higher or the next version does not continue the
            held one.
    """
    for step in steps:
        held = verify_keyset_update(step, held, at, require_current=False)
    verified = verify_keyset(data, at, held=held.document)
    keyset, version = verified.document, held.document.version
    if require_current and at >= keyset.expires_at:
        raise Expired(f"the keyset expired {at - keyset.expires_at} s ago")
    if keyset.version <= version:
        raise RolledBack(f"version {keyset.version}; {version} is held")
    if keyset.version == version + 1 and keyset.prev_sha256 != held.payload_sha256:
        raise RolledBack("the next version does not continue the held keyset")
    return verified


def verify_request(envelope: Envelope, model: type[R], key: PublicKey) -> Verified[R]:
    """Verify what an instance signed with its own key: exactly one signature.

    Raises:
        WrongType: another kind of document.
        MalformedEnvelope: more than one signature.
        UntrustedKey, BadSignature: not by this key, or not over this content.
        MalformedPayload: schema.
    """
    _check_type(envelope, model)
    only_signature(envelope)
    _good_signatures(envelope, {key.keyid: key}.get, "instance key")
    document = model.parse(envelope.payload)
    return Verified(document, envelope, (key.keyid,), sha256_hex(envelope.payload))


def verify_enrollment(envelope: Envelope) -> Verified[EnrollmentRequest]:
    """Verify an enrollment request under the key it brings.

    Raises:
        LicensingError: as `verify_request`; the payload is parsed first, since it holds the key.
    """
    _check_type(envelope, EnrollmentRequest)
    only_signature(envelope)
    request = EnrollmentRequest.parse(envelope.payload)
    return verify_request(envelope, EnrollmentRequest, PublicKey.from_base64(request.public_key))


def only_signature(envelope: Envelope) -> Signature:
    """Return the one signature of what an instance signed.

    Raises:
        MalformedEnvelope: there are several.
    """
    if len(envelope.signatures) != 1:
        raise MalformedEnvelope("a request has exactly one signature")
    return envelope.signatures[0]
