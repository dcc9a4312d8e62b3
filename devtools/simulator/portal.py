"""One deployment of a vendor, kept in memory, and what its portal answers to routers.

Invariants: requests are decided by the portal's own code, `portal.domain.leases` and
`portal.domain.lease_requests`. This module adds only a vendor's acts, enrollment codes, and the
protocol's treatment of clones that the portal does not have yet (`clone-suspected`, a new epoch). A
refusal changes nothing. Nothing is revoked because of a fork. The caller passes the time in.

Source: the lease protocol.
"""

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import structs

from devtools.vectors.keys import (
    FILLERS,
    LEASE,
    LICENSE,
    NEW_ROOT_1,
    REVOCATION,
    ROOT_1,
    TestKey,
)
from licensing.document import Document
from licensing.encoding import b64decode, crockford, parse_json, sha256_hex
from licensing.enrollment import LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope, Signature, pae
from licensing.errors import LicensingError
from licensing.keys import ZERO_SHA256, Key, Keyset, Root
from licensing.lease import Lease
from licensing.license import Binding, Budget, LeaseTerms, License, Limits, RevocationTerms
from licensing.names import PRODUCT
from licensing.request_body import RequestBody, read_lease_request, read_request
from licensing.revocation import RevocationBundle, RevocationEntry
from licensing.verify import Verified, verify_keyset
from portal.domain.errors import NotFound, PortalError
from portal.domain.lease_errors import (
    EnrollmentRefused,
    KeyEnrolled,
    LicenseMismatch,
    MalformedRequest,
    ProtocolError,
    TooLarge,
    UnknownInstance,
    UnsupportedMediaType,
)
from portal.domain.lease_requests import (
    FromInstance,
    require_type,
    verify_enrolling,
    verify_from_instance,
)
from portal.domain.leases import (
    Facts,
    Head,
    Known,
    NextLease,
    Step,
    first_lease,
    named_license,
    next_lease,
    slot_free_at,
)

MAX_BODY_BYTES: Final = 40 * 1024
DAY_S: Final = 86_400
TTL_S: Final = DAY_S
GRACE_S: Final = 3 * DAY_S
KEEP_S: Final = 90 * DAY_S
"""How long answers are kept."""
CODE_S: Final = DAY_S
FORKS: Final = 3
"""This many forks within two lifetimes of a lease are a suspected clone."""
ISSUER: Final = "metrum.ai"
_JSON: Final = "application/json"


@dataclass(frozen=True)
class Answer:
    """An answer to a router."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)


class CloneSuspected(ProtocolError):
    """The chain forked too often; a member must say why."""

    code = "clone-suspected"
    status = 409
    title = "Two routers seem to use one lease"
    next_action = "Say on the instance's page what happened."


@dataclass
class Given:
    """A lease that was granted, and when."""

    at: int
    lease_id: str
    envelope: bytes


@dataclass
class Instance:
    """A router as the portal knows it."""

    id: str
    public_key: bytes
    keyid: str
    code: str
    head: Head
    answers: dict[str, Given] = field(default_factory=dict)
    """By request id."""
    forks: list[int] = field(default_factory=list)
    """When chains forked."""
    healing: bool = False
    """A member said what happened: the next request begins a new epoch."""
    retired_at: datetime | None = None

    @property
    def usage(self) -> tuple[str | None, int]:
        """The budget it reported last, and the tokens used from it."""
        return self.head.usage_budget_id, self.head.usage_tokens


@dataclass
class Code:
    """An enrollment code."""

    until: int
    uses_left: int


@dataclass
class Database:
    """Everything a backup holds."""

    licenses: list[tuple[bytes, License]] = field(default_factory=list)
    superseded_at: dict[str, int] = field(default_factory=dict)
    """By license id: when its overlap ends."""
    held: bool = False
    revoked: bool = False
    codes: dict[str, Code] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    """By key id."""
    bundles: list[tuple[int, bytes]] = field(default_factory=list)
    keysets: list[bytes] = field(default_factory=list)
    lease_key: TestKey = LEASE
    root_key: TestKey = ROOT_1


class Simulator:
    """A portal with one account and one deployment."""

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        origin: str = "http://127.0.0.1:8000",
        **license_changes: Any,
    ) -> None:
        """Begin with a license in lease mode, a keyset and an empty revocation bundle.

        `license_changes` are fields of the first license.
        """
        self._clock = clock
        self.origin = origin
        self.former_origins: frozenset[str] = frozenset()
        self._ids = itertools.count(1)
        self.db = Database()
        self.log: list[tuple[str, str]] = []
        """(what happened, to whom), in order; kept for tests even when a backup is restored."""
        self.rotate(first=True)
        self.issue(**license_changes)
        self.publish_bundle()

    # What staff and members do.

    @property
    def now(self) -> int:
        """The time (Unix seconds)."""
        return self._clock()

    @property
    def _at(self) -> datetime:
        return _instant(self.now)

    @property
    def license(self) -> bytes:
        """The current license."""
        return self.db.licenses[-1][0]

    @property
    def keyset(self) -> bytes:
        """The current keyset."""
        return self.db.keysets[-1]

    @property
    def bundle(self) -> bytes:
        """The current revocation bundle."""
        return self.db.bundles[-1][1]

    def issue(self, *, overlap_s: int = 7 * DAY_S, **changes: Any) -> License:
        """Issue the deployment's next license: a replacement, a renewal or a top-up."""
        before = self.db.licenses[-1][1] if self.db.licenses else None
        values: dict[str, Any] = {
            "typ": License.TYP,
            "iss": ISSUER,
            "product": PRODUCT,
            "issued_at": self.now,
            "license_id": self._id("lic"),
            "deployment_id": before.deployment_id if before else self._id("dep"),
            "revision": before.revision + 1 if before else 1,
            "customer_id": before.customer_id if before else self._id("cus"),
            "customer_name": "Simulated customer",
            "sku": "pilot-30d",
            "mode": "lease",
            "not_before_at": self.now,
            "expires_at": self.now + 30 * DAY_S,
            "features": ("routing",),
            "limits": Limits(max_instances=2),
            "budget": Budget(budget_id=self._id("bud"), tokens_total=1_000_000),
            "binding": Binding(fingerprints=()),
            "lease": LeaseTerms(url=self.origin, ttl_s=TTL_S, grace_s=GRACE_S),
            "revocation": RevocationTerms(require_current_bundle=False, min_version=0),
            "min_keyset_version": 1,
        }
        if before is not None:
            values["supersedes"] = before.license_id
            kept = ("features", "limits", "budget", "sku", "lease", "expires_at")
            values |= {name: getattr(before, name) for name in kept}
            self.db.superseded_at[before.license_id] = self.now + overlap_s
        license_ = License(**{**values, **changes})
        self.db.licenses.append((self._sign(license_, LICENSE), license_))
        return license_

    def hold(self, *, held: bool = True) -> None:
        """Put the deployment on hold, or lift the hold."""
        self.db.held = held

    def code(self, uses: int = 1) -> str:
        """Create an enrollment code."""
        code = f"SIMULATED-CODE-{next(self._ids):012d}"
        self.db.codes[code] = Code(self.now + CODE_S, uses)
        return code

    def publish_bundle(self, *entries: RevocationEntry, days: int = 35) -> int:
        """Publish the next revocation bundle; returns its version."""
        last = self.db.bundles[-1][0] if self.db.bundles else 0
        version = max(last + 1, self.now)
        bundle = RevocationBundle(
            typ=RevocationBundle.TYP,
            iss=ISSUER,
            product=PRODUCT,
            issued_at=self.now,
            version=version,
            expires_at=self.now + days * DAY_S,
            entries=tuple(sorted(entries, key=lambda each: each.license_id)),
        )
        self.db.bundles.append((version, self._sign(bundle, REVOCATION)))
        return version

    def revoke(self, status: Literal["revoked", "suspended"] = "revoked") -> int:
        """Revoke the current license, by a bundle, and its leases."""
        self.db.revoked = status == "revoked"
        entry = RevocationEntry(
            license_id=self.db.licenses[-1][1].license_id,
            status=status,
            effective_at=self.now,
            reason="withdrawn",
        )
        return self.publish_bundle(entry)

    def rotate(self, *, roots: bool = False, first: bool = False) -> int:
        """Publish the next keyset with a new lease key and, if asked, a new root."""
        number = len(self.db.keysets) + 1
        before = self.db.root_key
        if not first:
            self.db.lease_key = FILLERS[number % len(FILLERS)]
        if roots:
            self.db.root_key = NEW_ROOT_1 if before == ROOT_1 else ROOT_1
        at = self.now
        used: dict[str, tuple[TestKey, Literal["license", "lease", "revocation"]]] = {
            LICENSE.keyid: (LICENSE, "license"),
            REVOCATION.keyid: (REVOCATION, "revocation"),
            LEASE.keyid: (LEASE, "lease"),
        }
        for each in range(2, number + 1):
            # A lease that is held, or an answer that is kept, may be signed by any of them.
            key = FILLERS[each % len(FILLERS)]
            used[key.keyid] = (key, "lease")
        keyset = Keyset(
            typ=Keyset.TYP,
            iss=ISSUER,
            product=PRODUCT,
            issued_at=at,
            version=number,
            expires_at=at + 365 * DAY_S,
            prev_sha256=(
                sha256_hex(Envelope.parse(self.keyset).payload) if not first else ZERO_SHA256
            ),
            root_threshold=1,
            roots=(
                Root(
                    keyid=self.db.root_key.keyid,
                    alg="ed25519",
                    public_key=self.db.root_key.public_key,
                ),
            ),
            keys=tuple(
                Key(
                    keyid=key.keyid,
                    alg="ed25519",
                    public_key=key.public_key,
                    role=role,
                    status="active",
                    not_before_at=0,
                    not_after_at=2**40,
                )
                for key, role in used.values()
            ),
        )
        signers = (self.db.root_key,) if before == self.db.root_key else (before, self.db.root_key)
        self.db.keysets.append(self._sign(keyset, *signers))
        return number

    def resolve_clone(self) -> None:
        """Record that a member said what happened: every suspected chain begins a new epoch."""
        for instance in self.db.instances.values():
            if instance.forks:
                instance.healing = True

    def retire(self, instance_id: str) -> None:
        """Retire an instance: its next lease ends its service."""
        for instance in self.db.instances.values():
            if instance.id == instance_id:
                if instance.head.slot_free_at is None:
                    self._give_up_slot(instance)
                instance.retired_at = self._at

    def backup(self) -> Database:
        """Return a backup of the database."""
        return copy.deepcopy(self.db)

    def restore(self, backup: Database) -> None:
        """Restore a backup; what was published stays published."""
        published = self.db
        self.db = copy.deepcopy(backup)
        self.db.keysets, self.db.bundles = published.keysets, published.bundles
        self.db.lease_key, self.db.root_key = published.lease_key, published.root_key
        self.db.licenses = published.licenses
        self.db.superseded_at = published.superseded_at

    # What routers ask.

    def handle(self, method: str, path: str, body: bytes, content_type: str = _JSON) -> Answer:
        """Answer one request."""
        try:
            if method == "GET":
                return self._document(path)
            return self._post(path, body, content_type)
        except PortalError as refusal:
            return _problem(refusal)

    def _document(self, path: str) -> Answer:
        named = {"/v1/keyset.json": self.keyset, "/v1/revocations/bundle.json": self.bundle}
        for number, keyset in enumerate(self.db.keysets, 1):
            named[f"/v1/keysets/{number}.json"] = keyset
        if path not in named:
            raise NotFound("There is no such document.")
        etag = f'"{sha256_hex(named[path])}"'
        return Answer(
            200, named[path], headers={"ETag": etag, "Cache-Control": "public, max-age=300"}
        )

    def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("Send at most 40 KiB.")
        if content_type != _JSON:
            raise UnsupportedMediaType("Send application/json.")
        if path == "/v1/enrollments":
            return self._enroll(_read(body, read_request))
        if path == "/v1/leases":
            return self._renew(_read(body, read_lease_request))
        if path == "/v1/licenses":
            instance, request = self._verified(_read(body, read_lease_request), LeaseRequest)
            if self._known(instance, request.document).license_id is None:
                raise LicenseMismatch("The named license is another deployment's.")
            return Answer(200, self.license)
        if path == "/v1/releases":
            return self._release(_read(body, read_request))
        raise NotFound("There is no such endpoint.")

    def _enroll(self, body: RequestBody) -> Answer:
        verified = verify_enrolling(body.request, self)
        request = verified.document
        known = self.db.instances.get(verified.keyid)
        if known is not None:
            given = known.answers.get(request.request_id)
            if given is None or known.code != request.code:
                raise KeyEnrolled(f"This key enrolled as {known.id}.")
            return _enrolled(known.id, given.envelope)
        code = self.db.codes.get(request.code)
        if code is None or self.now >= code.until or code.uses_left < 1 or self.db.held:
            raise EnrollmentRefused("The code cannot be used to enroll.")
        facts = self._facts(
            replace(
                self._license_known(request.license_id),
                instance_id=self._id("ins"),
                keyid=verified.keyid,
                public_key=b64decode(request.public_key),
            )
        )
        try:
            license_ = named_license(facts.known, request)
        except LicenseMismatch as error:
            raise EnrollmentRefused(error.message) from error
        decided = first_lease(verified, facts, license_, self._at)
        instance = Instance(
            facts.known.instance_id,
            facts.known.public_key,
            verified.keyid,
            request.code,
            decided.head,
        )
        code.uses_left -= 1
        self.db.instances[verified.keyid] = instance
        self.log.append(("enrolled", instance.id))
        return _enrolled(instance.id, self._give(instance, decided))

    def _renew(self, body: RequestBody) -> Answer:
        instance, request = self._verified(body, LeaseRequest)
        head, asked = (
            _new_epoch(instance.head, request) if instance.healing else (instance.head, request)
        )
        facts = self._facts(self._known(instance, request.document), instance, body.prev_lease)
        decided = next_lease(head, asked, facts, self._at)
        if isinstance(decided, bytes):
            return Answer(200, decided)
        if instance.healing:
            instance.healing, instance.forks = False, []
        elif decided.step is Step.FORK:
            recent = [at for at in instance.forks if self.now - at <= 2 * TTL_S]
            if len(recent) >= FORKS:
                raise CloneSuspected("Two routers seem to use this lease.")
            instance.forks.append(self.now)
            self.log.append(("forked", instance.id))
        elif decided.step is Step.AHEAD:
            self.log.append(("adopted", instance.id))
        self.log.append(("renewed", instance.id))
        return Answer(200, self._give(instance, decided))

    def _release(self, body: RequestBody) -> Answer:
        instance, request = self._verified(body, ReleaseRequest)
        head = instance.head
        given_up = head.released_at is not None or instance.retired_at is not None
        if request.document.lease_id == head.lease_id and not given_up:
            self._give_up_slot(instance)
            instance.head = replace(instance.head, released_at=self._at)
            self.log.append(("released", instance.id))
        return Answer(204, b"", "")

    def _give_up_slot(self, instance: Instance) -> None:
        license_ = self.db.licenses[-1][1]
        given_up = [
            moment
            for each in self.db.instances.values()
            if each is not instance and (moment := each.head.released_at or each.retired_at)
        ]
        free_at = slot_free_at(
            given_up,
            self._at,
            ttl_s=TTL_S if license_.lease is None else license_.lease.ttl_s,
            max_instances=license_.limits.max_instances,
            grace_until_at=instance.head.lease_grace_until_at,
        )
        instance.head = replace(instance.head, slot_free_at=free_at)

    def _verified(
        self, body: RequestBody, model: type[FromInstance]
    ) -> tuple[Instance, Verified[FromInstance]]:
        require_type(body.request, model)
        instance = self.db.instances.get(body.keyid)
        if instance is None:
            raise UnknownInstance("No instance was enrolled with this key.")
        verified = verify_from_instance(
            body.request, model, self, public_key=instance.public_key, instance_id=instance.id
        )
        return instance, verified

    def _license_known(self, license_id: str) -> Known:
        """Return what is known about the license with this id, without an instance."""
        current = self.db.licenses[-1][1]
        named = [each for each in self.db.licenses if each[1].license_id == license_id]
        payload = Envelope.parse(named[0][0]).payload if named else None
        superseded_at = self.db.superseded_at.get(license_id)
        return Known(
            instance_id="",
            account_id=current.customer_id,
            deployment_id=current.deployment_id,
            keyid="",
            public_key=b"",
            has_others=True,
            license_id=license_id if named else None,
            license_deployment_id=current.deployment_id if named else None,
            license_payload=payload,
            license_sha256=None if payload is None else sha256_hex(payload),
            license_released_at=_instant(named[0][1].issued_at) if named else None,
            superseded_at=None if superseded_at is None else _instant(superseded_at),
            superseded_by=None if superseded_at is None else current.license_id,
            revoked_at=self._at if self.db.revoked else None,
            is_held=self.db.held,
            latest_bundle=self.db.bundles[-1][0],
            has_stopped_keys=False,
            keyset_sha256=None,
        )

    def _known(self, instance: Instance, request: LeaseRequest) -> Known:
        given = instance.answers.get(request.request_id)
        kept = given is not None and self.now - given.at <= KEEP_S
        return replace(
            self._license_known(request.license_id),
            instance_id=instance.id,
            keyid=instance.keyid,
            public_key=instance.public_key,
            retired_at=instance.retired_at,
            answered_lease_id=None if given is None else given.lease_id,
            answer=given.envelope if given is not None and kept else None,
        )

    def _facts(
        self, known: Known, asking: Instance | None = None, prev_lease: bytes | None = None
    ) -> Facts:
        return Facts(
            known,
            issuer=ISSUER,
            lease_id=self._id("lea"),
            keyset=verify_keyset(self.keyset, self.now).document,
            others=[each.head for each in self.db.instances.values() if each is not asking],
            prev_lease=prev_lease,
        )

    def _give(self, instance: Instance, decided: NextLease) -> bytes:
        """Sign a lease; store it as the answer to its request and as the chain's head."""
        lease = decided.lease
        envelope = self._sign(lease, self.db.lease_key)
        instance.head = decided.head
        instance.answers[lease.request_id] = Given(self.now, lease.lease_id, envelope)
        return envelope

    def widened(self, envelope: bytes) -> bytes:
        """Return a lease for the newest license so that it goes beyond it, signed with our key."""
        lease, newest = Lease.parse(Envelope.parse(envelope).payload), Envelope.parse(self.license)
        if lease.license_sha256 != sha256_hex(newest.payload):
            return envelope
        ends = License.parse(newest.payload).expires_at
        return self._sign(structs.replace(lease, grace_until_at=ends + 1), self.db.lease_key)

    def _sign(self, document: Document, *keys: TestKey) -> bytes:
        payload = document.to_bytes()
        message = pae(document.PAYLOAD_TYPE, payload)
        signatures = tuple(Signature(key.keyid, key.sign(message)) for key in keys)
        return Envelope(payload, document.PAYLOAD_TYPE, signatures).to_bytes()

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{crockford(next(self._ids).to_bytes(16, 'big'))}"


def _new_epoch(head: Head, request: Verified[LeaseRequest]) -> tuple[Head, Verified[LeaseRequest]]:
    """End the epoch of the router's lease: its next lease is the first of a new one."""
    claim = request.document
    epoch = max(head.epoch, claim.prev_epoch) + 1
    begun = replace(head, epoch=epoch, seq=0, lease_sha256=claim.prev_sha256)
    return begun, replace(request, document=structs.replace(claim, prev_epoch=epoch, prev_seq=0))


def _problem(refusal: PortalError) -> Answer:
    advice = refusal.next_action if isinstance(refusal, ProtocolError) else "See the protocol."
    problem = {
        "type": "about:blank",
        "title": refusal.code,
        "status": refusal.status,
        "detail": refusal.message,
        "code": refusal.code,
        "request_id": "simulated",
        "next_action": advice,
    }
    return Answer(refusal.status, json.dumps(problem).encode(), "application/problem+json")


def _enrolled(instance_id: str, lease: bytes) -> Answer:
    answer = {"instance_id": instance_id, "lease": Envelope.parse(lease).to_object()}
    return Answer(201, json.dumps(answer).encode())


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _read(body: bytes, read: Callable[[object], RequestBody]) -> RequestBody:
    try:
        return read(parse_json(body, max_bytes=MAX_BODY_BYTES))
    except LicensingError as error:
        raise MalformedRequest(error.detail) from error
