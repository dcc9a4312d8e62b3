"""One deployment of a vendor, kept in memory, and what its portal answers to routers.

Invariants: answers to one request id are equal byte for byte. A refusal changes nothing. Nothing is
revoked because of a fork. Whoever drives it gives the time.

Source: the lease protocol.
"""

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

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
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope, Signature, pae
from licensing.errors import LicensingError, MalformedPayload, WrongType
from licensing.keys import ZERO_SHA256, Key, Keyset, PublicKey, Root, loaded_key
from licensing.lease import Lease
from licensing.license import Binding, Budget, LeaseTerms, License, Limits, RevocationTerms
from licensing.names import PRODUCT
from licensing.revocation import RevocationBundle, RevocationEntry
from licensing.verify import KeysetTrust, verify_enrollment, verify_keyset, verify_lease
from licensing.verify import verify_request as verify_signed
from portal.domain.leases import Link, Step, active_span, budget_share, inactive_span, next_step

MAX_BODY_BYTES: Final = 40 * 1024
DAY_S: Final = 86_400
TTL_S: Final = DAY_S
GRACE_S: Final = 3 * DAY_S
KEEP_S: Final = 90 * DAY_S
"""How long answers are kept."""
CODE_S: Final = DAY_S
FORKS: Final = 3
"""So many within two lifetimes of a lease are a suspected clone."""
ISSUER: Final = "metrum.ai"
LeaseStatus = Literal["active", "suspended", "revoked", "superseded", "ended"]
Standing = tuple[LeaseStatus, str | None, str | None]
"""Status, reason, and the license that took its place."""
_JSON: Final = "application/json"


@dataclass(frozen=True)
class Answer:
    """What goes back to a router."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request is refused; nothing changed."""

    def __init__(self, status: int, code: str, detail: str, next_action: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail
        self.next_action = next_action or "See the lease protocol."


@dataclass
class Instance:
    """A router, as the portal knows it."""

    id: str
    public_key: bytes
    keyid: str
    enrolled_with: str
    """The request id of its enrollment."""
    code: str
    epoch: int = 1
    seq: int = 0
    sha256: str = ZERO_SHA256
    lease: Lease | None = None
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """When and what, by request id."""
    forks: list[int] = field(default_factory=list)
    """When chains forked."""
    healing: bool = False
    """A member said what happened: the next request begins a new epoch."""
    released: bool = False
    retired: bool = False
    usage: tuple[str, int] | None = None


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
        self._ids = itertools.count(1)
        self.db = Database()
        self.log: list[tuple[str, str]] = []
        """(what happened, to whom), in order: the test's view, which no restore takes back."""
        self.rotate(first=True)
        self.issue(**license_changes)
        self.publish_bundle()

    # What staff and members do.

    @property
    def now(self) -> int:
        """The time (Unix seconds)."""
        return self._clock()

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
        """Make an enrollment code."""
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
        """Revoke the current license by a bundle, and its leases."""
        self.db.revoked = status == "revoked"
        entry = RevocationEntry(
            license_id=self.db.licenses[-1][1].license_id,
            status=status,
            effective_at=self.now,
            reason="withdrawn",
        )
        return self.publish_bundle(entry)

    def rotate(self, *, roots: bool = False, first: bool = False) -> int:
        """Publish the next keyset, with a new lease key, and on demand a new root."""
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
            # A lease that is held, or an answer that waits, may be signed by any of them.
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
        """A member says what happened: every suspected chain begins a new epoch."""
        for instance in self.db.instances.values():
            if instance.forks:
                instance.healing = True

    def retire(self, instance_id: str) -> None:
        """Retire an instance: its next lease ends its service."""
        for instance in self.db.instances.values():
            if instance.id == instance_id:
                instance.retired = True

    def backup(self) -> Database:
        """Return a backup of the database."""
        return copy.deepcopy(self.db)

    def restore(self, backup: Database) -> None:
        """Go back to a backup; what was published stays published."""
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
        except Refusal as refusal:
            problem = {
                "type": "about:blank",
                "title": refusal.code,
                "status": refusal.status,
                "detail": refusal.detail,
                "code": refusal.code,
                "request_id": "simulated",
                "next_action": refusal.next_action,
            }
            text = json.dumps(problem).encode()
            return Answer(refusal.status, text, "application/problem+json")

    def _document(self, path: str) -> Answer:
        named = {"/v1/keyset.json": self.keyset, "/v1/revocations/bundle.json": self.bundle}
        for number, keyset in enumerate(self.db.keysets, 1):
            named[f"/v1/keysets/{number}.json"] = keyset
        if path not in named:
            raise Refusal(404, "not-found", "There is no such document.")
        etag = f'"{sha256_hex(named[path])}"'
        return Answer(
            200, named[path], headers={"ETag": etag, "Cache-Control": "public, max-age=300"}
        )

    def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, "too-large", "Send at most 40 KiB.")
        if content_type != _JSON:
            raise Refusal(415, "unsupported-media-type", "Send application/json.")
        envelope, prev_lease = _parse_body(body)
        if path == "/v1/enrollments":
            return self._enroll(envelope)
        if path == "/v1/leases":
            return self._renew(envelope, prev_lease)
        if path == "/v1/licenses":
            self._lease_request(envelope)
            return Answer(200, self.license)
        if path == "/v1/releases":
            return self._release(envelope)
        raise Refusal(404, "not-found", "There is no such endpoint.")

    def _enroll(self, envelope: Envelope) -> Answer:
        try:
            verified = verify_enrollment(envelope)
        except (MalformedPayload, WrongType) as error:
            raise Refusal(422, "invalid-request", error.detail) from error
        except LicensingError as error:
            raise Refusal(401, "bad-signature", error.detail) from error
        request = verified.document
        self._check_audience(request.aud)
        known = self.db.instances.get(verified.keyid)
        if known is not None:
            kept = known.answers.get(request.request_id)
            if kept is not None and known.code == request.code:
                return Answer(201, kept[1])
            raise Refusal(403, "enrollment-refused", "The key is enrolled.")
        code = self.db.codes.get(request.code)
        license_ = self._named(request.license_id, request.license_sha256)
        if code is None or self.now >= code.until or code.uses_left < 1 or self.db.held:
            raise Refusal(403, "enrollment-refused", "The code is not good for enrolling.")
        self._check_slots(license_, None)
        raw = b64decode(request.public_key)
        instance = Instance(self._id("ins"), raw, verified.keyid, request.request_id, request.code)
        _, body = self._sign_lease(instance, license_, request, verified.payload_sha256)
        answer = json.dumps(
            {"instance_id": instance.id, "lease": Envelope.parse(body).to_object()}
        ).encode()
        code.uses_left -= 1
        instance.answers[request.request_id] = (self.now, answer)
        self.db.instances[verified.keyid] = instance
        self.log.append(("enrolled", instance.id))
        return Answer(201, answer)

    def _renew(self, envelope: Envelope, prev_lease: bytes | None) -> Answer:
        instance, request, sha256 = self._lease_request(envelope)
        kept = instance.answers.get(request.request_id)
        if kept is not None:
            if request.request_id == instance.enrolled_with or self.now - kept[0] > KEEP_S:
                raise Refusal(409, "request-replayed", "This id was answered before.")
            return Answer(200, kept[1])
        license_ = self._named(request.license_id, request.license_sha256)
        link = Link(instance.epoch, instance.seq, instance.sha256)
        claimed = Link(request.prev_epoch, request.prev_seq, request.prev_sha256)
        step = next_step(link, claimed)
        healed, instance.healing = instance.healing, False
        if healed:
            instance.epoch, instance.seq = max(link.epoch, claimed.epoch) + 1, 0
            instance.sha256, instance.forks = claimed.sha256, []
        elif step is Step.AHEAD:
            self._adopt(instance, claimed, prev_lease)
        elif step is Step.FORK:
            recent = [at for at in instance.forks if self.now - at <= 2 * TTL_S]
            if len(recent) >= FORKS:
                raise Refusal(409, "clone-suspected", "Say on the instance's page what happened.")
            instance.forks.append(self.now)
            self.log.append(("forked", instance.id))
        try:
            self._check_slots(license_, instance)
        except Refusal:
            instance.healing = healed
            raise
        if request.usage is not None:
            instance.usage = (request.usage.budget_id, request.usage.tokens_total)
        warning = step is Step.FORK and not healed
        _, body = self._sign_lease(instance, license_, request, sha256, clone_warning=warning)
        instance.answers[request.request_id] = (self.now, body)
        instance.released = False
        self.log.append(("renewed", instance.id))
        return Answer(200, body)

    def _release(self, envelope: Envelope) -> Answer:
        instance, request, _ = self._verified(envelope, ReleaseRequest)
        assert isinstance(request, ReleaseRequest)
        if instance.lease is not None and request.lease_id == instance.lease.lease_id:
            instance.released = True
            self.log.append(("released", instance.id))
        return Answer(204, b"", "")

    def _lease_request(self, envelope: Envelope) -> tuple[Instance, LeaseRequest, str]:
        instance, request, sha256 = self._verified(envelope, LeaseRequest)
        assert isinstance(request, LeaseRequest)
        self._named(request.license_id, request.license_sha256)
        return instance, request, sha256

    def _verified(
        self, envelope: Envelope, model: type[LeaseRequest] | type[ReleaseRequest]
    ) -> tuple[Instance, LeaseRequest | ReleaseRequest, str]:
        instance = self.db.instances.get(envelope.signatures[0].keyid)
        if instance is None:
            raise Refusal(401, "unknown-instance", "No instance has this key.")
        try:
            key: PublicKey = loaded_key(instance.public_key)
            verified = verify_signed(envelope, model, key)
        except (MalformedPayload, WrongType) as error:
            raise Refusal(422, "invalid-request", error.detail) from error
        except LicensingError as error:
            raise Refusal(401, "bad-signature", error.detail) from error
        self._check_audience(verified.document.aud)
        if verified.document.instance_id != instance.id:
            raise Refusal(401, "unknown-instance", "The key is another instance's.")
        return instance, verified.document, verified.payload_sha256

    def _check_audience(self, aud: str) -> None:
        if aud != self.origin:
            raise Refusal(422, "wrong-audience", f"This portal is {self.origin}.")

    def _named(self, license_id: str, sha256: str) -> License:
        for data, license_ in self.db.licenses:
            payload = Envelope.parse(data).payload
            if license_.license_id == license_id and sha256_hex(payload) == sha256:
                return license_
        raise Refusal(403, "license-mismatch", "The license is another deployment's.")

    def _check_slots(self, license_: License, asking: Instance | None) -> None:
        most = license_.limits.max_instances
        if most is None:
            return
        others = sum(
            each is not asking
            and not each.released
            and each.lease is not None
            and each.lease.serves(self.now)
            for each in self.db.instances.values()
        )
        holds = asking is not None and not asking.released
        if not holds and others >= most:
            raise Refusal(403, "instances-exhausted", "All instances are in use.")

    def _adopt(self, instance: Instance, claimed: Link, prev_lease: bytes | None) -> None:
        if prev_lease is None:
            raise Refusal(409, "previous-lease-required", "Send the lease along.")
        trust = KeysetTrust(verify_keyset(self.keyset, self.now).document)
        try:
            held = verify_lease(prev_lease, trust, self.now, instance_keyid=instance.keyid)
        except LicensingError as error:
            raise Refusal(422, "invalid-request", error.detail) from error
        if Link(held.document.epoch, held.document.seq, held.payload_sha256) != claimed:
            raise Refusal(422, "invalid-request", "prev_lease is another lease.")
        instance.epoch, instance.seq, instance.sha256 = claimed.epoch, claimed.seq, claimed.sha256
        self.log.append(("adopted", instance.id))

    def _sign_lease(
        self,
        instance: Instance,
        license_: License,
        request: LeaseRequest | EnrollmentRequest,
        request_sha256: str,
        *,
        clone_warning: bool = False,
    ) -> tuple[Lease, bytes]:
        status, reason, successor = self._status(license_, instance)
        if status == "active" and license_.lease is not None:
            terms = license_.lease
            span = active_span(
                self.now,
                ttl_s=terms.ttl_s,
                grace_s=terms.grace_s,
                license_expires_at=license_.expires_at,
            )
        else:
            span = inactive_span(self.now, license_expires_at=license_.expires_at)
        instance.seq += 1
        lease = Lease(
            typ=Lease.TYP,
            iss=ISSUER,
            product=PRODUCT,
            issued_at=self.now,
            lease_id=self._id("lea"),
            deployment_id=license_.deployment_id,
            license_id=license_.license_id,
            license_revision=license_.revision,
            license_sha256=request.license_sha256,
            customer_id=license_.customer_id,
            instance_id=instance.id,
            instance_keyid=instance.keyid,
            fingerprint=request.fingerprint,
            epoch=instance.epoch,
            seq=instance.seq,
            prev_sha256=instance.sha256,
            request_id=request.request_id,
            request_sha256=request_sha256,
            status=status,
            reason=reason,
            superseded_by=successor,
            budget=self._share(instance, license_) if status == "active" else None,
            expires_at=span.expires_at,
            grace_until_at=span.grace_until_at,
            renew_at=(span.renew_earliest_at, span.renew_latest_at),
            bundle_version=self.db.bundles[-1][0],
            keyset_version=len(self.db.keysets),
            clone_warning=True if clone_warning else None,
        )
        body = self._sign(lease, self.db.lease_key)
        instance.lease, instance.sha256 = lease, sha256_hex(lease.to_bytes())
        return lease, body

    def _status(self, license_: License, instance: Instance) -> Standing:
        if self.db.revoked:
            return "revoked", "withdrawn", None
        if self.db.held:
            return "suspended", "on-hold", None
        ends = self.db.superseded_at.get(license_.license_id)
        if ends is not None and ends <= self.now:
            return "superseded", "replaced", self.db.licenses[-1][1].license_id
        if license_.expires_at <= self.now:
            return "ended", "expired", None
        if instance.retired:
            return "ended", "retired", None
        return "active", None, None

    def _share(self, instance: Instance, license_: License) -> Budget | None:
        budget = license_.budget
        if budget is None:
            return None

        def used_by(each: Instance) -> int:
            named, tokens = each.usage or ("", 0)
            return tokens if named == budget.budget_id else 0

        def may_use(each: Instance) -> int:
            lease = each.lease
            if lease is None or lease.budget is None or not lease.serves(self.now):
                return 0
            return lease.budget.tokens_total if lease.budget.budget_id == budget.budget_id else 0

        others = [each for each in self.db.instances.values() if each is not instance]
        share = budget_share(
            total=budget.tokens_total,
            used=used_by(instance),
            used_by_others=sum(used_by(each) for each in others),
            granted_to_others=sum(max(used_by(each), may_use(each)) for each in others),
            slots=license_.limits.max_instances or 1,
        )
        return Budget(
            budget_id=budget.budget_id,
            tokens_total=share,
            carry_over_from=budget.carry_over_from,
        )

    def _sign(self, document: Document, *keys: TestKey) -> bytes:
        payload = document.to_bytes()
        message = pae(document.PAYLOAD_TYPE, payload)
        signatures = tuple(Signature(key.keyid, key.sign(message)) for key in keys)
        return Envelope(payload, document.PAYLOAD_TYPE, signatures).to_bytes()

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{crockford(next(self._ids).to_bytes(16, 'big'))}"


def _parse_body(body: bytes) -> tuple[Envelope, bytes | None]:
    try:
        value = parse_json(body, max_bytes=MAX_BODY_BYTES)
        if isinstance(value, dict) and "request" in value:
            prev = Envelope.from_object(value["prev_lease"]).to_bytes()
            return Envelope.from_object(value["request"]), prev
        return Envelope.from_object(value), None
    except (LicensingError, KeyError, TypeError) as error:
        raise Refusal(400, "malformed-request", f"The body is no envelope: {error}") from error
