"""Enrolling, renewing and releasing a lease, one attempt at a time.

Source: "The router" of the lease protocol. A lease is installed exactly when it verifies, is this
instance's own, answers the pending request, keeps within the license, is above the held one, and
continues it (unless it warns of a clone or begins a new epoch).
"""

import contextlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from licensing.bounds import REJECTED, excess
from licensing.encoding import b64encode, parse_json, sha256_hex
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest, Usage
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.lease import Lease
from licensing.license import License
from licensing.names import INSTANCE_ISSUER
from licensing.verify import KeysetTrust, Trust, Verified, examine_license, verify_lease
from router.clock import Clock, SystemClock
from router.errors import Refused, RouterError, StateError, Unreachable, UsageError
from router.lease.identity import Identity, load_identity, make_identity
from router.lease.store import LeaseState, LeaseStore, new_request_id
from router.network.fetch import MAX_ANSWER_BYTES, Fetch, require_answer, require_done
from router.state.store import State

SOFTWARE: Final = "router-license/0.1.0"
BOOT_ID: Final = secrets.token_hex(16)
"""New at each start."""


@dataclass(frozen=True)
class Grounds:
    """What a request is based on: the license, the trusted keys, and the time."""

    license: Verified[License]
    trust: Trust
    at: int
    bundle_version: int = 0
    """The highest version of a revocation bundle seen."""
    usage: Usage | None = None
    """How much of its budget this instance used."""
    periods: Mapping[str, int] = field(default_factory=dict)
    """Since when each period budget of the deployment has been in use here."""
    clock: Clock = field(default_factory=SystemClock)
    """Measures how long the answer takes."""

    @property
    def origin(self) -> str:
        """The portal's origin, from the license; it is the audience of every request."""
        terms = self.license.document.lease
        if terms is None:
            raise UsageError("the license works offline: it needs no lease")
        return terms.url


def read_grounds(data: bytes, trust: Trust, at: int, fingerprint: str | None) -> Grounds:
    """Verify the license to request a lease for; a bundle it may need comes with the lease.

    Raises:
        LicensingError: it does not verify here and now.
    """
    return Grounds(examine_license(data, trust, at, fingerprint=fingerprint).require(10), trust, at)


def best_grounds(
    file: bytes, fetched: bytes | None, trust: Trust, at: int, fingerprint: str | None
) -> Grounds:
    """Return the grounds for the license a router uses: the highest revision that verifies.

    If none verifies now, a genuine one that has expired or not begun will do for asking.

    Raises:
        LicensingError: the license file is none of them.
    """
    reports = [
        examine_license(data, trust, at, fingerprint=fingerprint)
        for data in (file, fetched)
        if data is not None
    ]
    ours = reports[0]
    wanted = None if ours.verified is None else ours.verified.document.deployment_id
    for late in ((), ("expired", "not-yet-valid")):
        good = [
            report.verified
            for report in reports
            if report.verified is not None
            and (report.fits or (report.error is not None and report.error.code in late))
            and wanted in (None, report.verified.document.deployment_id)
        ]
        if good:
            return Grounds(max(good, key=lambda each: each.document.revision), trust, at)
    assert ours.error is not None
    raise ours.error


def usage_of(state: State, license_: Verified[License], lease: Lease | None) -> Usage | None:
    """Return what this instance used of its budget; None if there is no budget.

    The lease's budget counts if the lease is for this very license, else the license's own.
    """
    budget = license_.document.budget
    if lease is not None and lease.license_sha256 == license_.payload_sha256:
        budget = lease.budget or budget
    tally = None if budget is None else state.budgets.tallies.get(budget.budget_id)
    if budget is None or tally is None:
        return None
    return Usage(budget_id=budget.budget_id, tokens_total=tally.used, requests_total=tally.requests)


@dataclass(frozen=True)
class Enrollment:
    """What a router enrolls with. All but the code and the label is stored with the lease."""

    code: str
    fingerprint: str | None = None
    label: str | None = None
    """What people call this router."""
    license_path: Path | None = None
    keyset_path: Path | None = None

    def remembered(self, state: LeaseState) -> LeaseState:
        """Return the state with what later commands need."""
        license_path, keyset_path = (
            None if path is None else str(path.absolute())
            for path in (self.license_path, self.keyset_path)
        )
        return replace(
            state,
            fingerprint=self.fingerprint,
            license_path=license_path,
            keyset_path=keyset_path,
        )


def enroll(store: LeaseStore, grounds: Grounds, enrollment: Enrollment, fetch: Fetch) -> Lease:
    """Enroll this router and install its first lease. Safe to repeat after a lost answer.

    Raises:
        UsageError: the code, the label or the fingerprint is not well-formed.
        StateError, Unreachable, Refused, LicensingError: nothing was installed.
    """
    state = store.load()
    if state.lease is not None:
        raise StateError(
            f"{store.directory} is enrolled as {state.instance_id} already; "
            "use another directory for another instance"
        )
    state, request = enrollment_request(store, enrollment.remembered(state), grounds, enrollment)
    answer = fetch("/v1/enrollments", request.to_bytes())
    instance_id, envelope = _read_enrollment(require_answer(answer, 201))
    return install_lease(store, state, grounds, envelope, instance_id=instance_id)


def enrollment_request(
    store: LeaseStore, state: LeaseState, grounds: Grounds, enrollment: Enrollment
) -> tuple[LeaseState, Envelope]:
    """Sign the pending enrollment request with the instance's key; create either if missing.

    Raises:
        UsageError: the code, the label or the fingerprint is not well-formed.
        StateError: the request cannot be made durable.
    """
    aud = grounds.origin
    identity = load_identity(store.directory) or make_identity(store.directory)
    state = store.with_pending(state, grounds.clock)
    request = EnrollmentRequest(
        typ=EnrollmentRequest.TYP,
        iss=INSTANCE_ISSUER,
        issued_at=grounds.at,
        aud=aud,
        request_id=state.pending or "",
        code=enrollment.code,
        public_key=b64encode(identity.public_key),
        fingerprint=state.fingerprint,
        label=enrollment.label,
        software=SOFTWARE,
        license_id=grounds.license.document.license_id,
        license_sha256=grounds.license.payload_sha256,
    )
    try:
        return state, identity.sign(request)
    except LicensingError as error:
        raise UsageError(f"such a request cannot be written: {error.detail}") from error


def install_lease(
    store: LeaseStore,
    state: LeaseState,
    grounds: Grounds,
    envelope: Envelope,
    *,
    instance_id: str | None = None,
    courier: bool = False,
) -> Lease:
    """Install the answer to the pending request, in one step.

    `instance_id` is what an enrollment's answer names.

    Raises:
        LicensingError, RouterError: a rule is broken; the held lease stands.
    """
    identity = load_identity(store.directory)
    if identity is None:
        raise StateError(f"{store.directory} has no key; run router-license enroll first")
    fresh = not courier and state.is_fresh(grounds.clock)
    lease = accept_lease(envelope, grounds, identity.keyid, state, fresh=fresh).document
    if instance_id is not None and lease.instance_id != instance_id:
        raise Unreachable("the answer names another instance than its lease")
    state = replace(state, instance_id=lease.instance_id)
    store.save(state.installed(envelope, grounds.at, fresh=fresh, courier=courier))
    return lease


def _read_enrollment(body: bytes) -> tuple[str, Envelope]:
    try:
        value = parse_json(body, max_bytes=MAX_ANSWER_BYTES)
        return str(value["instance_id"]), Envelope.from_object(value["lease"])
    except (LicensingError, KeyError, TypeError) as error:
        raise Unreachable(f"the answer is not an enrollment: {error}") from error


def renew(store: LeaseStore, grounds: Grounds, fetch: Fetch, *, again: bool = False) -> Lease:
    """Ask for the next lease and install it; `again` takes a released slot again.

    Raises:
        StateError, Unreachable, Refused, LicensingError: the held lease stands.
    """
    state = store.load()
    if not again and state.released is not None:
        raise StateError(
            f"{store.directory} has given its lease up; "
            "run router-license renew --again to take a slot again"
        )
    if not again and state.releasing is not None:
        raise StateError(
            "a release waits for its answer; run router-license release again, "
            "or router-license renew --again to keep the lease"
        )
    return _renew(store, grounds, fetch, state)


def _renew(store: LeaseStore, grounds: Grounds, fetch: Fetch, state: LeaseState) -> Lease:
    identity, held = _enrolled(store, state)
    state = store.with_pending(state, grounds.clock)
    try:
        envelope = _ask(fetch, sign_request(identity, state, held, grounds), state)
    except Refused as refusal:
        if refusal.code != "request-replayed":
            raise
        # Answered too long ago to be answered again: this id can never succeed.
        state = store.with_pending(replace(state, pending=None), grounds.clock)
        envelope = _ask(fetch, sign_request(identity, state, held, grounds), state)
    return install_lease(store, state, grounds, envelope)


def renewal_request(
    store: LeaseStore, state: LeaseState, grounds: Grounds
) -> tuple[LeaseState, Envelope]:
    """Make the pending request's id durable, then sign the request.

    Raises:
        StateError: not enrolled, or it cannot be written.
    """
    identity, held = _enrolled(store, state)
    state = store.with_pending(state, grounds.clock)
    return state, sign_request(identity, state, held, grounds)


def fetch_license(store: LeaseStore, grounds: Grounds, fetch: Fetch) -> bytes:
    """Fetch the deployment's current license; this is no renewal and does not touch the chain.

    Raises:
        StateError, Unreachable, Refused: nothing came.
    """
    state = store.load()
    identity, held = _enrolled(store, state)
    request = sign_request(identity, replace(state, pending=new_request_id()), held, grounds)
    return require_answer(fetch("/v1/licenses", request.to_bytes()), 200)


def newer_license(data: bytes, grounds: Grounds) -> bool:
    """Return whether a fetched license may be kept: genuine, ours, and not an older revision.

    Raises:
        LicensingError: it is not genuine.
    """
    report = examine_license(data, grounds.trust, grounds.at)
    if report.verified is None:
        assert report.error is not None
        raise report.error
    ours, theirs = grounds.license.document, report.verified.document
    return ours.deployment_id == theirs.deployment_id and theirs.revision >= ours.revision


def _enrolled(store: LeaseStore, state: LeaseState) -> tuple[Identity, Lease]:
    identity = load_identity(store.directory)
    held = state.held()
    if identity is None or held is None or state.instance_id is None:
        raise StateError(f"{store.directory} is not enrolled; run router-license enroll first")
    return identity, held


def release(store: LeaseStore, grounds: Grounds, fetch: Fetch) -> Lease:
    """Release the lease and its slot. Safe to repeat, also after a lost answer.

    A renewal that is still waiting for its answer is settled first: the portal may have issued a
    lease that never arrived, and only the newest one can be released. Once the release has been
    requested the router stops renewing, so that nothing takes the slot again by accident.

    Raises:
        StateError, Unreachable: nothing is known; repeat it.
        Refused, LicensingError: the held lease stands.
    """
    aud = grounds.origin
    state = store.load()
    identity, held = _enrolled(store, state)
    if state.released is not None:
        return held
    if state.pending is not None and state.releasing is None:
        # A request that is refused was given no lease: the one at hand is the newest.
        with contextlib.suppress(Refused):
            held = _renew(store, grounds, fetch, state)
        state = store.load()
    if state.releasing is None:
        state = replace(state, releasing=new_request_id())
        store.save(state)
    request = ReleaseRequest(
        typ=ReleaseRequest.TYP,
        iss=INSTANCE_ISSUER,
        issued_at=grounds.at,
        aud=aud,
        request_id=state.releasing or "",
        instance_id=held.instance_id,
        lease_id=held.lease_id,
    )
    try:
        require_done(fetch("/v1/releases", identity.sign(request).to_bytes()))
    except Refused:
        store.save(replace(state, releasing=None))
        raise
    store.save(replace(state, releasing=None, released=held.lease_id))
    return held


def sign_request(identity: Identity, state: LeaseState, held: Lease, grounds: Grounds) -> Envelope:
    """Sign the pending lease request."""
    envelope = state.envelope()
    assert envelope is not None
    return identity.sign(
        LeaseRequest(
            typ=LeaseRequest.TYP,
            iss=INSTANCE_ISSUER,
            issued_at=grounds.at,
            aud=grounds.origin,
            request_id=state.pending or "",
            license_id=grounds.license.document.license_id,
            license_sha256=grounds.license.payload_sha256,
            instance_id=held.instance_id,
            fingerprint=state.fingerprint,
            prev_epoch=held.epoch,
            prev_seq=held.seq,
            prev_sha256=sha256_hex(envelope.payload),
            boot_id=BOOT_ID,
            bundle_version=grounds.bundle_version,
            keyset_version=grounds.trust.version or 0,
            software=SOFTWARE,
            usage=grounds.usage,
        )
    )


def _ask(fetch: Fetch, request: Envelope, state: LeaseState) -> Envelope:
    """Send a lease request; add the held lease if the portal asks for it."""
    try:
        body = require_answer(fetch("/v1/leases", request.to_bytes()), 200)
    except Refused as refusal:
        held = state.envelope()
        if refusal.code != "previous-lease-required" or held is None:
            raise
        both = {"request": request.to_object(), "prev_lease": held.to_object()}
        body = require_answer(fetch("/v1/leases", json.dumps(both).encode()), 200)
    try:
        return Envelope.parse(body)
    except LicensingError as error:
        raise Unreachable(f"the answer is not a lease: {error.detail}") from error


def _is_disowned(envelope: Envelope, grounds: Grounds) -> bool:
    """Say whether only compromised keys vouch for a lease: then nothing has to continue it."""
    trust = grounds.trust
    if not isinstance(trust, KeysetTrust):
        return False
    known = {each.keyid for each in envelope.signatures if trust.find(each.keyid, "lease")}
    return bool(known) and known <= trust.keyset.compromised


def accept_lease(
    envelope: Envelope, grounds: Grounds, keyid: str, state: LeaseState, *, fresh: bool
) -> Verified[Lease]:
    """Check every rule a lease must keep before it is installed.

    It is judged at the time that is in force once it is installed. An answer that arrived right
    after its request tells the time, so a clock that runs slow does not make it look like one from
    the future, nor does one that runs fast end a budget's period.

    Raises:
        LicensingError: it does not verify.
        RouterError: it is genuine, and not the answer to the pending request, or grants more than
            its license.
    """
    at = Lease.parse(envelope.payload).issued_at if fresh else grounds.at
    verified = verify_lease(envelope.to_bytes(), grounds.trust, at, instance_keyid=keyid)
    lease = verified.document
    rules = [
        (lease.request_id == state.pending, "it answers another request"),
        (
            lease.deployment_id == grounds.license.document.deployment_id,
            "it is for another deployment",
        ),
    ]
    held, held_envelope = state.held(), state.envelope()
    if held is not None and held_envelope is not None and not _is_disowned(held_envelope, grounds):
        continues = (
            lease.prev_sha256 == sha256_hex(held_envelope.payload)
            or lease.clone_warning is True
            or lease.epoch > held.epoch
        )
        rules += [
            (
                (lease.epoch, lease.seq) > (held.epoch, held.seq),
                "it is not above the lease at hand",
            ),
            (continues, "it does not continue the lease at hand"),
        ]
    complaints = [complaint for holds, complaint in rules if not holds]
    beyond = excess(lease, grounds.license, at, grounds.periods)
    if beyond is not None:
        complaints.append(beyond)
    if complaints:
        raise RouterError(f"the lease was not installed: {complaints[0]}", code=REJECTED)
    return verified
