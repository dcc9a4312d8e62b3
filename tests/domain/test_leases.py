"""The rules of the lease chain, of times, slots and shares, and the next lease they make."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.bounds import excess
from licensing.encoding import b64encode, sha256_hex
from licensing.enrollment import EnrollmentRequest, InstanceDocument, LeaseRequest, Usage
from licensing.envelope import Envelope
from licensing.keys import ZERO_SHA256
from licensing.license import Budget, LeaseTerms, License, Limits
from licensing.verify import Verified, verify_keyset
from portal.domain.lease_errors import (
    InstancesExhausted,
    InvalidRequest,
    LicenseMismatch,
    PreviousLeaseRequired,
    RequestReplayed,
)
from portal.domain.leases import (
    Facts,
    Head,
    Known,
    Link,
    NextLease,
    Step,
    active_span,
    budget_share,
    first_lease,
    inactive_span,
    needs_others,
    next_lease,
    next_step,
    slot_free_at,
)
from tests.fakes import MemorySigner
from tests.router.papers import DAY_S, ORIGIN, Vendor, identifier

HEAD = Link(2, 7, "a" * 64)
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("claimed", "step"),
    [
        (HEAD, Step.CONTINUE),
        (Link(2, 8, "b" * 64), Step.AHEAD),
        (Link(3, 1, "b" * 64), Step.AHEAD),
        (Link(2, 6, "b" * 64), Step.FORK),
        (Link(1, 99, "b" * 64), Step.FORK),
        (Link(2, 7, "b" * 64), Step.FORK),
        (Link(0, 0, "0" * 64), Step.FORK),
    ],
)
def test_a_claim_continues_is_ahead_or_forks(claimed: Link, step: Step) -> None:
    assert next_step(HEAD, claimed) is step


@pytest.mark.parametrize(
    ("ttl_h", "earliest_h", "latest_h"), [(72, 24, 36), (24, 8, 12), (7 * 24, 56, 84)]
)
def test_the_renewal_window_is_that_of_each_plan(
    ttl_h: int, earliest_h: int, latest_h: int
) -> None:
    span = active_span(0, ttl_s=ttl_h * 3600, grace_s=9, license_expires_at=10**9)
    assert span.renew_earliest_at == earliest_h * 3600
    assert span.renew_latest_at == latest_h * 3600
    assert span.grace_until_at == ttl_h * 3600 + 9


@given(
    at=st.integers(0, 10**9),
    ttl_s=st.integers(1, 10**7),
    grace_s=st.integers(0, 10**7),
    left=st.integers(1, 10**8),
)
def test_no_lease_outlives_its_license(at: int, ttl_s: int, grace_s: int, left: int) -> None:
    span = active_span(at, ttl_s=ttl_s, grace_s=grace_s, license_expires_at=at + left)
    assert span.renew_earliest_at <= span.renew_latest_at <= span.expires_at
    assert span.expires_at <= span.grace_until_at <= at + left


def test_who_is_not_active_asks_again_in_five_to_fifteen_minutes() -> None:
    span = inactive_span(1000, license_expires_at=10**9)
    assert (span.renew_earliest_at, span.renew_latest_at) == (1300, 1900)


def test_only_so_many_slots_are_freed_at_once_in_a_leases_life() -> None:
    later = AT + timedelta(hours=30)
    free = slot_free_at([], AT, ttl_s=86400, max_instances=1, grace_until_at=later)
    assert free == AT
    one_before = [AT - timedelta(hours=1)]
    assert slot_free_at(one_before, AT, ttl_s=86400, max_instances=1, grace_until_at=later) == later
    long_ago = [AT - timedelta(hours=25)]
    assert slot_free_at(long_ago, AT, ttl_s=86400, max_instances=1, grace_until_at=later) == AT


@given(
    total=st.integers(0, 10**9),
    slots=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**8)), max_size=40),
)
def test_all_instances_together_stay_within_the_budget(
    total: int, slots: int, steps: list[tuple[int, int]]
) -> None:
    used = [0] * 5
    granted = [0] * 5
    for instance, wish in steps:
        used[instance] = min(granted[instance], used[instance] + wish)
        others = [each for each in range(5) if each != instance]
        granted[instance] = budget_share(
            total=total,
            used=used[instance],
            used_by_others=sum(used[each] for each in others),
            granted_to_others=sum(granted[each] for each in others),
            slots=slots,
        )
        assert granted[instance] >= used[instance]
        assert sum(max(g, u) for g, u in zip(granted, used, strict=True)) <= total


VENDOR = Vendor()
KEYSET = verify_keyset(VENDOR.keyset(), int(AT.timestamp())).document
BUDGET = Budget(budget_id=identifier("bud", 1), tokens_total=1000)
HOUR = timedelta(hours=1)


def license_of(**changes: Any) -> License:
    """Return a license in lease mode, for two instances that share 1000 tokens."""
    now = int(AT.timestamp())
    values: dict[str, Any] = {
        "mode": "lease",
        "lease": LeaseTerms(url=ORIGIN, ttl_s=DAY_S, grace_s=3 * DAY_S),
        "issued_at": now - DAY_S,
        "not_before_at": now - DAY_S,
        "expires_at": now + 10 * DAY_S,
        "limits": Limits(max_instances=2),
        "budget": BUDGET,
    }
    return License.parse(Envelope.parse(VENDOR.license(**{**values, **changes})).payload)


def verified(document: InstanceDocument, keyid: str) -> Verified[Any]:
    """Return a request as it stands once its signature was found right."""
    payload = document.to_bytes()
    return Verified(
        document, Envelope(payload, document.PAYLOAD_TYPE, ()), (keyid,), sha256_hex(payload)
    )


@dataclass
class Instance:
    """One instance as a portal stores it."""

    number: int
    head: Head
    answers: dict[str, bytes] = field(default_factory=dict)
    retired_at: datetime | None = None

    @property
    def id(self) -> str:
        return identifier("ins", self.number)

    @property
    def signer(self) -> MemorySigner:
        return MemorySigner(f"instance {self.number}".encode())


@dataclass
class Chains:
    """One deployment's instances, stored as the portal stores them; answers are payloads."""

    license: License = field(default_factory=license_of)
    at: datetime = AT
    changes: dict[str, Any] = field(default_factory=dict)
    """What else is known of the named license."""
    instances: dict[int, Instance] = field(default_factory=dict)
    numbers: int = 0

    def known(self, number: int, **changes: Any) -> Known:
        signer = MemorySigner(f"instance {number}".encode())
        payload = self.license.to_bytes()
        values: dict[str, Any] = {
            "instance_id": identifier("ins", number),
            "account_id": self.license.customer_id,
            "deployment_id": self.license.deployment_id,
            "keyid": signer.keyid,
            "public_key": signer.public_key,
            "retired_at": None,
            "has_others": True,
            "answered_lease_id": None,
            "answer": None,
            "license_id": self.license.license_id,
            "license_deployment_id": self.license.deployment_id,
            "license_payload": payload,
            "license_sha256": sha256_hex(payload),
            "license_released_at": AT,
            "superseded_at": None,
            "superseded_by": None,
            "revoked_at": None,
            "is_held": False,
            "latest_bundle": 7,
            "has_stopped_keys": False,
            "keyset_sha256": "5" * 64,
        }
        return Known(**{**values, **self.changes, **changes})

    def facts(self, known: Known, **changes: Any) -> Facts:
        self.numbers += 1
        others = [each.head for each in self.instances.values() if each.id != known.instance_id]
        values: dict[str, Any] = {
            "issuer": "metrum.ai",
            "lease_id": identifier("lea", self.numbers),
            "keyset": KEYSET,
            "others": others,
        }
        return Facts(known, **{**values, **changes})

    def enroll(self, number: int = 1) -> NextLease:
        known = self.known(number)
        request = EnrollmentRequest(
            typ=EnrollmentRequest.TYP,
            iss="instance",
            issued_at=int(self.at.timestamp()),
            aud=ORIGIN,
            request_id=identifier("req", 10**6 + number),
            code="A" * 32,
            public_key=b64encode(known.public_key),
            software="tests/1",
            license_id=self.license.license_id,
            license_sha256=known.license_sha256 or "",
        )
        facts = self.facts(known)
        decided = first_lease(verified(request, known.keyid), facts, self.license, self.at)
        self.instances[number] = Instance(number, decided.head)
        return decided

    def request(self, number: int = 1, request: int = 1, **changes: Any) -> Verified[LeaseRequest]:
        instance = self.instances[number]
        values: dict[str, Any] = {
            "typ": LeaseRequest.TYP,
            "iss": "instance",
            "issued_at": int(self.at.timestamp()),
            "aud": ORIGIN,
            "request_id": identifier("req", request),
            "license_id": self.license.license_id,
            "license_sha256": sha256_hex(self.license.to_bytes()),
            "instance_id": instance.id,
            "prev_epoch": instance.head.epoch,
            "prev_seq": instance.head.seq,
            "prev_sha256": instance.head.lease_sha256,
            "boot_id": "b" * 32,
            "bundle_version": 3,
            "keyset_version": 1,
            "software": "tests/2",
        }
        return verified(LeaseRequest(**{**values, **changes}), instance.signer.keyid)

    def decide(
        self, request: Verified[LeaseRequest], number: int = 1, **facts: Any
    ) -> bytes | NextLease:
        instance = self.instances[number]
        answer = instance.answers.get(request.document.request_id)
        known = self.known(
            number,
            retired_at=instance.retired_at,
            answered_lease_id=None if answer is None else identifier("lea"),
            answer=answer,
        )
        return next_lease(instance.head, request, self.facts(known, **facts), self.at)

    def renew(self, number: int = 1, request: int = 1, **changes: Any) -> NextLease:
        """Renew and store what comes of it."""
        asked = self.request(number, request, **changes)
        decided = self.decide(asked, number)
        assert isinstance(decided, NextLease)
        instance = self.instances[number]
        instance.head = decided.head
        instance.answers[asked.document.request_id] = decided.payload
        return decided


@pytest.fixture
def chains() -> Chains:
    """One instance that enrolled an hour ago."""
    made = Chains()
    made.enroll()
    made.at += HOUR
    return made


def test_the_first_lease_begins_the_chain() -> None:
    decided = Chains().enroll()
    lease = decided.lease
    assert (lease.epoch, lease.seq, lease.prev_sha256) == (1, 1, ZERO_SHA256)
    assert (lease.status, lease.clone_warning) == ("active", None)
    assert (lease.bundle_version, lease.keyset_version) == (7, 1)
    assert decided.head.link == Link(1, 1, sha256_hex(decided.payload))
    assert (decided.head.software, decided.head.boot_id) == ("tests/1", None)


def test_a_request_that_continues_the_head_gets_the_next_lease(chains: Chains) -> None:
    before = chains.instances[1].head
    decided = chains.renew(
        usage=Usage(budget_id=BUDGET.budget_id, tokens_total=9, requests_total=2)
    )
    assert decided.step is Step.CONTINUE
    assert decided.prev == before.link
    assert (decided.lease.seq, decided.lease.prev_sha256) == (2, before.lease_sha256)
    after = decided.head
    assert after.link == Link(1, 2, sha256_hex(decided.payload))
    assert (after.software, after.boot_id) == ("tests/2", "b" * 32)
    assert (after.bundle_version, after.keyset_version) == (3, 1)
    assert (after.usage_budget_id, after.usage_tokens, after.usage_requests) == (
        BUDGET.budget_id,
        9,
        2,
    )
    assert after.last_seen_at == after.lease_issued_at == chains.at


SUCCESSOR = identifier("lic", 9)
STANDINGS: dict[str, tuple[dict[str, Any], tuple[str, str | None, str | None]]] = {
    "active": ({}, ("active", None, None)),
    "revoked": (
        {"revoked_at": AT, "is_held": True, "superseded_at": AT},
        ("revoked", "withdrawn", None),
    ),
    "held": ({"is_held": True}, ("suspended", "on-hold", None)),
    "held in the overlap": (
        {"is_held": True, "superseded_at": AT + 2 * HOUR, "superseded_by": SUCCESSOR},
        ("suspended", "on-hold", None),
    ),
    "held after the overlap": (
        {"is_held": True, "superseded_at": AT, "superseded_by": SUCCESSOR},
        ("superseded", "replaced", SUCCESSOR),
    ),
    "overlap": (
        {"superseded_at": AT + 2 * HOUR, "superseded_by": SUCCESSOR},
        ("active", None, None),
    ),
    "overlap ends": (
        {"superseded_at": AT + HOUR, "superseded_by": SUCCESSOR},
        ("superseded", "replaced", SUCCESSOR),
    ),
}


@pytest.mark.parametrize("name", STANDINGS)
def test_a_lease_says_how_its_license_stands(chains: Chains, name: str) -> None:
    chains.changes, wanted = STANDINGS[name]
    lease = chains.renew().lease
    assert (lease.status, lease.reason, lease.superseded_by) == wanted
    now = int(chains.at.timestamp())
    if lease.status == "active":
        assert lease.expires_at == now + DAY_S
        assert lease.budget is not None
    else:
        assert (lease.expires_at, lease.renew_at) == (now + 900, (now + 300, now + 900))
        assert lease.budget is None


def test_an_expired_license_and_a_retired_instance_end_the_lease(chains: Chains) -> None:
    chains.instances[1].retired_at = AT
    assert chains.renew(request=1).lease.reason == "retired"
    chains.at = AT + timedelta(days=10)
    lease = chains.renew(request=2).lease
    assert (lease.status, lease.reason) == ("ended", "expired")


def test_a_request_answered_before_gets_those_bytes_whatever_has_happened(chains: Chains) -> None:
    request = chains.request()
    first = chains.renew()
    chains.renew(request=2)
    chains.changes = {"revoked_at": AT, "license_payload": None}
    assert chains.decide(request) == first.payload
    chains.instances[1].answers[request.document.request_id] = None  # type: ignore[assignment]
    known = chains.known(1, answered_lease_id=first.lease.lease_id)
    with pytest.raises(RequestReplayed):
        next_lease(chains.instances[1].head, request, chains.facts(known), chains.at)


MISMATCHES: dict[str, dict[str, Any]] = {
    "no such license": {"license_payload": None, "license_id": None},
    "another deployment's": {"license_deployment_id": identifier("dep", 77)},
    "not released": {"license_released_at": None},
    "another file": {"license_sha256": "6" * 64},
    "offline": {
        "license_payload": (offline := license_of(mode="offline", lease=None)).to_bytes(),
        "license_sha256": sha256_hex(offline.to_bytes()),
    },
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_license_that_is_none_of_the_deployments_is_refused(chains: Chains, name: str) -> None:
    chains.changes = MISMATCHES[name]
    named = offline if name == "offline" else chains.license
    with pytest.raises(LicenseMismatch):
        chains.renew(license_sha256=sha256_hex(named.to_bytes()))


def test_what_does_not_continue_the_chain_forks_it_and_warns(chains: Chains) -> None:
    old = chains.instances[1].head
    chains.renew()
    head = chains.instances[1].head
    decided = chains.renew(request=2, prev_seq=old.seq, prev_sha256=old.lease_sha256)
    assert (decided.step, decided.lease.clone_warning) == (Step.FORK, True)
    assert (decided.lease.seq, decided.lease.prev_sha256) == (3, head.lease_sha256)
    assert decided.lease.status == "active"
    assert chains.renew(request=3).lease.clone_warning is None


class TestAhead:
    """A database that was restored from a backup, and a router that is ahead of it."""

    @pytest.fixture
    def lost(self, chains: Chains) -> NextLease:
        """A lease the router holds and the database forgot."""
        head = chains.instances[1].head
        chains.renew(request=1)
        lost = chains.renew(request=2)
        chains.instances[1].head, chains.instances[1].answers = head, {}
        return lost

    def request(self, chains: Chains, lost: NextLease) -> Verified[LeaseRequest]:
        return chains.request(
            request=3, prev_seq=lost.lease.seq, prev_sha256=lost.head.lease_sha256
        )

    def test_it_is_asked_for_the_lease(self, chains: Chains, lost: NextLease) -> None:
        with pytest.raises(PreviousLeaseRequired):
            chains.decide(self.request(chains, lost))

    def test_with_the_lease_the_chain_goes_on(self, chains: Chains, lost: NextLease) -> None:
        signed = VENDOR.sign(lost.lease, "lease").to_bytes()
        decided = chains.decide(self.request(chains, lost), prev_lease=signed)
        assert isinstance(decided, NextLease)
        assert (decided.step, decided.prev) == (Step.AHEAD, lost.head.link)
        assert (decided.lease.seq, decided.lease.clone_warning) == (4, None)
        assert decided.lease.prev_sha256 == sha256_hex(lost.payload)

    @pytest.mark.parametrize("wrong", ["role", "bytes", "another lease", "another instance"])
    def test_any_other_lease_is_refused(self, chains: Chains, lost: NextLease, wrong: str) -> None:
        request = self.request(chains, lost)
        signed = VENDOR.sign(lost.lease, "license" if wrong == "role" else "lease").to_bytes()
        if wrong == "bytes":
            signed = b"{}"
        elif wrong == "another lease":
            signed = VENDOR.sign(chains.renew(request=4).lease, "lease").to_bytes()
        elif wrong == "another instance":
            signed = VENDOR.sign(chains.enroll(2).lease, "lease").to_bytes()
        with pytest.raises(InvalidRequest) as raised:
            chains.decide(request, prev_lease=signed)
        assert raised.value.pointer == "/prev_lease"


def test_a_slot_is_held_through_grace_and_until_it_is_free(chains: Chains) -> None:
    head = chains.instances[1].head
    ends = head.lease_grace_until_at
    assert head.holds_slot(ends - timedelta(seconds=1))
    assert not head.holds_slot(ends)
    assert not replace(head, lease_status="suspended").holds_slot(AT)
    assert not replace(head, slot_free_at=AT).holds_slot(AT)
    assert replace(head, slot_free_at=AT + HOUR).holds_slot(AT)


def test_a_released_instance_comes_back_into_a_free_slot_alone(chains: Chains) -> None:
    given_up = replace(chains.instances[1].head, released_at=AT, slot_free_at=AT)
    chains.instances[1].head = given_up
    chains.enroll(2)
    chains.enroll(3)
    with pytest.raises(InstancesExhausted):
        chains.renew()
    chains.changes = {"is_held": True}
    held = chains.renew(request=1).head
    assert (held.released_at, held.slot_free_at) == (AT, AT)
    chains.changes = {}
    del chains.instances[3]
    back = chains.renew(request=2).head
    assert (back.released_at, back.slot_free_at) == (None, None)


def test_more_instances_than_licensed_do_not_enroll(chains: Chains) -> None:
    chains.enroll(2)
    with pytest.raises(InstancesExhausted):
        chains.enroll(3)


def test_an_instance_enrolls_into_what_the_others_leave(chains: Chains) -> None:
    usage = Usage(budget_id=BUDGET.budget_id, tokens_total=500, requests_total=1)
    first = chains.renew(usage=usage).lease.budget
    second = chains.enroll(2).lease.budget
    assert first is not None
    assert second is not None
    assert (first.tokens_total, second.tokens_total) == (750, 250)


def test_usage_never_falls_and_counts_when_none_is_reported(chains: Chains) -> None:
    for request, tokens in enumerate((400, 100, None)):
        usage = tokens and Usage(budget_id=BUDGET.budget_id, tokens_total=tokens, requests_total=1)
        decided = chains.renew(request=request, usage=usage)
        assert decided.head.usage_tokens == 400
        assert decided.lease.budget is not None
        assert decided.lease.budget.tokens_total == 700


def test_a_lease_keeps_within_its_license_whatever_was_used(chains: Chains) -> None:
    """What was carried over is used beyond `tokens_total`; a lease may not say so."""
    usage = Usage(budget_id=BUDGET.budget_id, tokens_total=1300, requests_total=1)
    decided = chains.renew(usage=usage)
    assert decided.head.usage_tokens == 1300
    assert decided.lease.budget is not None
    assert decided.lease.budget.tokens_total == BUDGET.tokens_total
    assert beyond(chains, decided) is None


def beyond(chains: Chains, decided: NextLease) -> str | None:
    """Return what a router would refuse a lease for."""
    payload = chains.license.to_bytes()
    envelope = Envelope(payload, License.PAYLOAD_TYPE, ())
    license_ = Verified(chains.license, envelope, ("0" * 64,), sha256_hex(payload))
    assert decided.lease.license_sha256 == license_.payload_sha256
    return excess(decided.lease, license_, int(chains.at.timestamp()))


def test_the_others_matter_for_a_budget_and_for_coming_back(chains: Chains) -> None:
    head, known = chains.instances[1].head, chains.known(1)
    assert needs_others(head, known)
    assert not needs_others(head, replace(known, has_others=False))
    assert not needs_others(head, replace(known, answered_lease_id="lea"))
    assert not needs_others(head, replace(known, license_payload=None))
    plain = replace(known, license_payload=license_of(budget=None).to_bytes())
    assert not needs_others(head, plain)
    assert needs_others(replace(head, released_at=AT), plain)


ACTS = st.tuples(
    st.sampled_from(["renew", "again", "fork", "enroll", "wait", "hold", "release"]),
    st.integers(1, 3),
    st.integers(0, 700),
)


@given(st.lists(ACTS, max_size=40))
def test_whatever_happens_chains_rise_and_shares_stay_within_the_budget(
    acts: list[tuple[str, int, int]],
) -> None:
    chains, ends = Chains(), 0
    links: dict[int, list[Link]] = {}
    for request, (act, number, amount) in enumerate(acts):
        chains.at += timedelta(minutes=1)
        if act == "wait":
            chains.at += timedelta(hours=amount / 10)
        elif act == "hold":
            chains.changes = {"is_held": not chains.changes.get("is_held", False)}
        elif act == "enroll" and number not in chains.instances and not chains.changes:
            try:
                links[number] = [chains.enroll(number).head.link]
            except InstancesExhausted:
                continue
        elif number in chains.instances:
            _renew_somehow(chains, links[number], act, number, amount, request)
        ends = chains.license.expires_at
        for instance in chains.instances.values():
            assert instance.head.lease_grace_until_at.timestamp() <= ends
        _check_shares(chains)


def _renew_somehow(
    chains: Chains, chain: list[Link], act: str, number: int, amount: int, request: int
) -> None:
    instance = chains.instances[number]
    head = instance.head
    if act == "release":
        instance.head = replace(head, released_at=chains.at, slot_free_at=chains.at)
        return
    if act == "again" and instance.answers:
        for request_id, answer in instance.answers.items():
            request_number = chains.request(number, request_id=request_id)
            assert chains.decide(request_number, number) == answer
        return
    claimed = chain[0] if act == "fork" else chain[-1]
    may_use = head.may_use(BUDGET.budget_id, chains.at)
    used = min(may_use, head.used(BUDGET.budget_id) + amount)
    try:
        decided = chains.renew(
            number,
            request,
            prev_epoch=claimed.epoch,
            prev_seq=claimed.seq,
            prev_sha256=claimed.sha256,
            usage=Usage(budget_id=BUDGET.budget_id, tokens_total=used, requests_total=1),
        )
    except InstancesExhausted:
        assert instance.head == head, "a refusal changes nothing"
        return
    lease = decided.lease
    assert beyond(chains, decided) is None
    assert (lease.epoch, lease.seq) == (chain[-1].epoch, chain[-1].seq + 1)
    assert lease.prev_sha256 == chain[-1].sha256
    assert (lease.clone_warning is True) is (claimed != chain[-1])
    assert lease.budget is None or lease.budget.tokens_total >= used
    chain.append(decided.head.link)


def _check_shares(chains: Chains) -> None:
    heads = [each.head for each in chains.instances.values()]
    assert sum(head.may_use(BUDGET.budget_id, chains.at) for head in heads) <= BUDGET.tokens_total
