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
12. an entry of the bundle in effect - `revoked`, `suspended`, `superseded`
13. a bundle needed and never seen - `revocation-required`; seen before or given, and now missing,
    older, expired, bad or below `min_version` - `revocation-unusable`

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
from licensing.keys import Key, Keyset, PublicKey, public_key_of
from licensing.lease import Lease
from licensing.license import License
from licensing.names import DEFAULT_ISSUER, PRODUCT
from licensing.revocation import RevocationBundle, RevocationEntry

CLOCK_TOLERANCE_S: Final = 300
"""How far `issued_at` may lie in the verifier's future."""

_REVOCATIONS: Final = {"revoked": Revoked, "suspended": Suspended, "superseded": Superseded}

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound=InstanceDocument)


class TrustedKey(Protocol):
    """A key that may be asked to verify, and until when its word counts."""

    def verify(self, sig: bytes, message: bytes) -> bool:
        """Say whether the signature is this key's."""
        ...

    def covers(self, issued_at: int) -> bool:
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

    def find(self, keyid: str, role: str) -> TrustedKey | None:
        """Return the key of this id that may sign for this role."""
        ...


@dataclass(frozen=True)
class _KeysetKey:
    entry: Key

    def verify(self, sig: bytes, message: bytes) -> bool:
        return public_key_of(self.entry).verify(sig, message)

    def covers(self, issued_at: int) -> bool:
        return self.entry.covers(issued_at)


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
        entry = self.keyset.find(keyid, role)
        return None if entry is None else _KeysetKey(entry)


@dataclass(frozen=True)
class _ApprovedKey:
    key: PublicKey

    def verify(self, sig: bytes, message: bytes) -> bool:
        return self.key.verify(sig, message)

    def covers(self, issued_at: int) -> bool:
        return True


@dataclass(frozen=True)
class SingleKeyTrust:
    """Trust in one approved key for every role; it knows no windows and no compromise."""

    key: PublicKey
    issuer: str = DEFAULT_ISSUER
    version: int | None = None

    def find(self, keyid: str, role: str) -> TrustedKey | None:
        """Return the key if it is the one named."""
        return _ApprovedKey(self.key) if keyid == self.key.keyid else None


@dataclass(frozen=True)
class Verified(Generic[D]):
    """A document whose signature, schema, issuer and product were found right."""

    document: D
    envelope: Envelope
    keyid: str
    """The key whose signature counted."""
    payload_sha256: str


@dataclass(frozen=True)
class Floors:
    """What was already in use here; 0 where nothing was."""

    revision: int = 0
    """Highest revision that served in this deployment."""
    bundle_version: int = 0
    """Highest version of a bundle ever seen."""
    keyset_version: int = 0
    """Highest version of a keyset ever in use."""


@dataclass(frozen=True)
class Check:
    """One answered question: `error` is None where the answer is good."""

    name: str
    error: LicensingError | None = None

    @property
    def code(self) -> str | None:
        """The code of the failure, if it is one."""
        return None if self.error is None else self.error.code


@dataclass(frozen=True)
class Report:
    """All that could be found out about a license file."""

    verified: Verified[License] | None
    """Set when rows 1 to 6 hold and a valid key signed, whatever the later rows say."""
    checks: tuple[Check, ...]
    """Every check that could be answered, in order."""

    @property
    def error(self) -> LicensingError | None:
        """The failure that decides; None for a valid license."""
        return next((check.error for check in self.checks if check.error), None)

    @property
    def also(self) -> tuple[Check, ...]:
        """The checks after the one that decides."""
        for index, check in enumerate(self.checks):
            if check.error:
                return self.checks[index + 1 :]
        return ()


def _open(data: bytes, model: type[D], max_bytes: int) -> Envelope:
    """Rows 1 and 2."""
    envelope = Envelope.parse(data, max_bytes=max_bytes)
    if envelope.payload_type != model.PAYLOAD_TYPE:
        raise WrongType(f"the payload type is {envelope.payload_type}, not {model.PAYLOAD_TYPE}")
    return envelope


def _good_signatures(
    envelope: Envelope, trust: Trust, role: str
) -> list[tuple[Signature, TrustedKey]]:
    """Rows 3 and 4: the signatures that verify, each with its key."""
    counted = [
        (signature, key)
        for signature in envelope.signatures
        if (key := trust.find(signature.keyid, role)) is not None
    ]
    if not counted:
        named = ", ".join(signature.keyid for signature in envelope.signatures)
        raise UntrustedKey(f"no trusted {role} key among the signers: {named}")
    message = envelope.signing_input()
    good = [(signature, key) for signature, key in counted if key.verify(signature.sig, message)]
    if not good:
        raise BadSignature("no trusted signature fits the content")
    return good


def _check_origin(document: Document, product: str, trust: Trust) -> None:
    """Row 6."""
    if document.iss != trust.issuer:
        raise WrongIssuer(f"issued by {document.iss}, while the keys are {trust.issuer}'s")
    if product != PRODUCT:
        raise WrongProduct(f"for {product}, not {PRODUCT}")


def _valid_keyid(good: list[tuple[Signature, TrustedKey]], issued_at: int) -> str:
    """Row 7: the first signer that counts."""
    for signature, key in good:
        if key.covers(issued_at):
            return signature.keyid
    raise KeyNotValid("the signing key is compromised or was not valid at issued_at")


def _verify_signed(
    data: bytes,
    model: type[D],
    role: str,
    trust: Trust,
    product: Callable[[D], str],
    max_bytes: int = MAX_BYTES,
) -> Verified[D]:
    """Rows 1 to 7 for a document a keyset key signs."""
    envelope = _open(data, model, max_bytes)
    good = _good_signatures(envelope, trust, role)
    document = model.parse(envelope.payload)
    _check_origin(document, product(document), trust)
    keyid = _valid_keyid(good, document.issued_at)
    return Verified(document, envelope, keyid, sha256_hex(envelope.payload))


def _check_issued(document: Document, at: int) -> None:
    if document.issued_at > at + CLOCK_TOLERANCE_S:
        raise NotYetValid("issued_at lies in the future; check this machine's clock")


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


def _check_keyset(license_: License, trust: Trust) -> None:
    """Row 8; one approved key has no version to compare."""
    if trust.version is not None and trust.version < license_.min_keyset_version:
        raise KeysetTooOld(
            f"the keyset has version {trust.version}; {license_.min_keyset_version} is needed"
        )


def _check_revision(license_: License, floors: Floors) -> None:
    """Row 11."""
    if license_.revision < floors.revision:
        raise RolledBack(f"revision {license_.revision}; {floors.revision} was in use here")


def _check_keyset_floor(trust: Trust, floors: Floors) -> None:
    """Row 11; one approved key has no version to compare."""
    if trust.version is not None and trust.version < floors.keyset_version:
        raise RolledBack(
            f"the keyset has version {trust.version}; {floors.keyset_version} was in use here"
        )


def check_entry(entry: RevocationEntry | None, at: int) -> None:
    """Row 12: refuse when an entry is in effect at this instant.

    Raises:
        Revoked, Suspended, Superseded: the entry says so.
    """
    if entry is not None and entry.effective_at <= at:
        successor = f"; the successor is {entry.superseded_by}" if entry.superseded_by else ""
        raise _REVOCATIONS[entry.status](f"reason: {entry.reason}{successor}")


@dataclass(frozen=True)
class _Bundle:
    """What came of reading the bundle: the document, or why there is none."""

    document: RevocationBundle | None
    error: LicensingError | None


def _read_bundle(data: bytes | None, trust: Trust, at: int) -> _Bundle:
    if data is None:
        return _Bundle(None, None)
    try:
        return _Bundle(verify_bundle(data, trust, at, require_current=False).document, None)
    except LicensingError as error:
        return _Bundle(None, error)


def _check_usable(
    bundle: _Bundle, license_: License, floors: Floors, at: int, required: bool
) -> None:
    """Row 13."""
    if bundle.error is not None:
        raise RevocationUnusable(f"{bundle.error.code}: {bundle.error.detail}")
    needed = (
        required
        or license_.revocation.require_current_bundle
        or license_.revocation.min_version > 0
    )
    document = bundle.document
    if document is None:
        if floors.bundle_version:
            raise RevocationUnusable("the bundle that was here before is missing")
        if needed:
            raise RevocationRequired("a current revocation bundle is needed; none was given")
        return
    if document.version < floors.bundle_version:
        raise RevocationUnusable(
            f"version {document.version} is older than {floors.bundle_version}, seen before"
        )
    if document.version < license_.revocation.min_version:
        raise RevocationUnusable(
            f"version {document.version}; the license asks for {license_.revocation.min_version}"
        )
    if at >= document.expires_at:
        raise RevocationUnusable(f"the bundle expired {at - document.expires_at} s ago")


def examine_license(
    data: bytes,
    trust: Trust,
    at: int,
    *,
    fingerprint: str | None = None,
    floors: Floors = Floors(),
    bundle: bytes | None = None,
    require_current_bundle: bool = False,
) -> Report:
    """Answer every check that can be answered about a license file.

    `fingerprint` is this instance's; empty where it has none, None to leave the binding unasked.
    """
    checks: list[Check] = []

    def ask(name: str, question: Callable[[], None]) -> bool:
        try:
            question()
        except LicensingError as error:
            checks.append(Check(name, error))
            return False
        checks.append(Check(name))
        return True

    try:
        envelope = _open(data, License, MAX_BYTES)
    except LicensingError as error:
        return Report(None, (Check("envelope", error),))
    checks.append(Check("envelope"))

    good: list[tuple[Signature, TrustedKey]] = []
    trusted = ask("signature", lambda: good.extend(_good_signatures(envelope, trust, "license")))
    try:
        license_ = License.parse(envelope.payload)
    except LicensingError as error:
        return Report(None, (*checks, Check("payload", error)))
    checks.append(Check("payload"))

    genuine = ask("origin", lambda: _check_origin(license_, license_.product, trust))
    keyid = ""
    if trusted:
        try:
            keyid = _valid_keyid(good, license_.issued_at)
            checks.append(Check("key"))
        except LicensingError as error:
            checks.append(Check("key", error))
    ask("keyset", lambda: _check_keyset(license_, trust))
    ask("time", lambda: _check_time(license_, at))
    if fingerprint is not None:
        ask("binding", lambda: _check_binding(license_, fingerprint))
    ask("revision", lambda: _check_revision(license_, floors))
    ask("keyset-floor", lambda: _check_keyset_floor(trust, floors))
    read = _read_bundle(bundle, trust, at)
    if read.document is not None:
        entry = read.document.entry(license_.license_id)
        ask("revocation", lambda: check_entry(entry, at))
    ask("bundle", lambda: _check_usable(read, license_, floors, at, require_current_bundle))

    verified = (
        Verified(license_, envelope, keyid, sha256_hex(envelope.payload))
        if trusted and genuine and keyid
        else None
    )
    return Report(verified, tuple(checks))


def verify_license(
    data: bytes,
    trust: Trust,
    at: int,
    *,
    fingerprint: str | None = None,
    floors: Floors = Floors(),
    bundle: bytes | None = None,
    require_current_bundle: bool = False,
) -> Verified[License]:
    """Verify a license file completely.

    Raises:
        LicensingError: the first failure in the order of this module.
    """
    report = examine_license(
        data,
        trust,
        at,
        fingerprint=fingerprint,
        floors=floors,
        bundle=bundle,
        require_current_bundle=require_current_bundle,
    )
    if report.error is not None:
        raise report.error
    assert report.verified is not None
    return report.verified


def verify_lease(
    data: bytes, trust: Trust, at: int, *, instance_keyid: str | None = None
) -> Verified[Lease]:
    """Verify a lease as a document; whether it still serves is `Lease.serves`.

    Raises:
        LicensingError: rows 1 to 7; `not-yet-valid` when issued in the future; `wrong-instance`
            when it is another instance's.
    """
    verified = _verify_signed(data, Lease, "lease", trust, lambda lease: lease.product)
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
    verified = _verify_signed(
        data,
        RevocationBundle,
        "revocation",
        trust,
        lambda bundle: bundle.product,
        MAX_BUNDLE_BYTES,
    )
    bundle = verified.document
    _check_issued(bundle, at)
    if require_current and at >= bundle.expires_at:
        raise Expired(f"the bundle expired {at - bundle.expires_at} s ago")
    if bundle.version < floor:
        raise RolledBack(f"version {bundle.version}; {floor} was seen before")
    return verified


def _open_keyset(data: bytes) -> tuple[Envelope, Keyset]:
    """Rows 1, 2 and 5: the payload comes before its signatures, since it names the roots."""
    envelope = _open(data, Keyset, MAX_KEYSET_BYTES)
    return envelope, Keyset.parse(envelope.payload)


def _root_signatures(envelope: Envelope, keyset: Keyset) -> list[Signature]:
    """Rows 3 and 4: the signatures by roots of this keyset that verify."""
    named = [
        (signature, root)
        for signature in envelope.signatures
        if (root := keyset.roots_by_keyid.get(signature.keyid)) is not None
    ]
    if not named:
        raise UntrustedKey("no root of the keyset is among the signers")
    message = envelope.signing_input()
    good = [
        signature for signature, root in named if public_key_of(root).verify(signature.sig, message)
    ]
    if not good:
        raise BadSignature("no root's signature fits the content")
    return good


def _check_threshold(good: list[Signature], keyset: Keyset) -> None:
    """Row 7 for roots. Key ids are distinct in an envelope, public keys in a keyset."""
    if len(good) < keyset.root_threshold:
        raise KeyNotValid(f"{len(good)} roots signed; {keyset.root_threshold} are needed")


def _check_product(keyset: Keyset) -> None:
    """Row 6."""
    if keyset.product != PRODUCT:
        raise WrongProduct(f"for {keyset.product}, not {PRODUCT}")


def verify_keyset(data: bytes, at: int) -> Verified[Keyset]:
    """Verify a keyset under its own roots, as a source checkout trusts the one it is given.

    An expired keyset still verifies: it warns and stops updates, it never stops service.

    Raises:
        LicensingError: rows 1 to 7, with the roots and their threshold in place of role and window;
            `not-yet-valid` when issued in the future.
    """
    envelope, keyset = _open_keyset(data)
    good = _root_signatures(envelope, keyset)
    _check_product(keyset)
    _check_threshold(good, keyset)
    _check_issued(keyset, at)
    return Verified(keyset, envelope, good[0].keyid, sha256_hex(envelope.payload))


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
        held = _verify_successor(step, held, at)
    return _verify_successor(data, held, at, require_current=require_current)


def _verify_successor(
    data: bytes, held: Verified[Keyset], at: int, *, require_current: bool = False
) -> Verified[Keyset]:
    envelope, keyset = _open_keyset(data)
    good = _root_signatures(envelope, keyset)
    good_by_held = _root_signatures(envelope, held.document)
    if keyset.iss != held.document.iss:
        raise WrongIssuer(f"issued by {keyset.iss}, not {held.document.iss}")
    _check_product(keyset)
    _check_threshold(good, keyset)
    _check_threshold(good_by_held, held.document)
    _check_issued(keyset, at)
    if require_current and at >= keyset.expires_at:
        raise Expired(f"the keyset expired {at - keyset.expires_at} s ago")
    if keyset.version <= held.document.version:
        raise RolledBack(f"version {keyset.version}; {held.document.version} is held")
    follows = keyset.version == held.document.version + 1
    if follows and keyset.prev_sha256 != held.payload_sha256:
        raise RolledBack("the next version does not continue the held keyset")
    return Verified(keyset, envelope, good[0].keyid, sha256_hex(envelope.payload))


def verify_request(envelope: Envelope, model: type[R], key: PublicKey) -> Verified[R]:
    """Verify what an instance signed with its own key: exactly one signature.

    Raises:
        WrongType: another kind of document.
        MalformedEnvelope: more than one signature.
        UntrustedKey, BadSignature: not by this key, or not over this content.
        MalformedPayload: schema.
    """
    if envelope.payload_type != model.PAYLOAD_TYPE:
        raise WrongType(f"the payload type is {envelope.payload_type}, not {model.PAYLOAD_TYPE}")
    signature = only_signature(envelope)
    if signature.keyid != key.keyid:
        raise UntrustedKey("signed by another key than the instance's")
    if not key.verify(signature.sig, envelope.signing_input()):
        raise BadSignature("the signature does not fit the content")
    document = model.parse(envelope.payload)
    return Verified(document, envelope, key.keyid, sha256_hex(envelope.payload))


def verify_enrollment(envelope: Envelope) -> Verified[EnrollmentRequest]:
    """Verify an enrollment request under the key it brings.

    Raises:
        LicensingError: as `verify_request`; the payload is parsed first, since it holds the key.
    """
    if envelope.payload_type != EnrollmentRequest.PAYLOAD_TYPE:
        raise WrongType(f"the payload type is {envelope.payload_type}")
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
