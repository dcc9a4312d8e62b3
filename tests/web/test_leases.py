"""The lease protocol over HTTP: every answer, in the stated order, on both databases."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.verify import KeysetTrust, verify_bundle, verify_lease
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.instances import EnrollmentCode, Fork, Instance
from portal.db.leases import Lease as LeaseRow
from portal.db.licenses import Hold, License
from portal.domain.errors import Conflict
from portal.services.context import Actor, Transactions
from portal.services.instances import retire_instance
from portal.services.keys import current_keyset, unix
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.instances import Router, make_code, make_router, request_id
from tests.factories.licenses import issue, make_entitlement, make_lease_license, make_license
from tests.fakes import FakeClock, MemorySigners

COMMAND = Actor("command")


def post(client: FlaskClient, path: str, body: Envelope | dict[str, Any] | bytes) -> Any:
    data = (
        body.to_bytes()
        if isinstance(body, Envelope)
        else body
        if isinstance(body, bytes)
        else json.dumps(body).encode()
    )
    return client.post(path, data=data, content_type="application/json")


def enroll(
    client: FlaskClient, transactions: Transactions, license_: License, name: str = "router"
) -> Router:
    router = make_router(license_, name)
    at = unix(transactions.ports.clock.now())
    code = make_code(transactions, license_)
    answer = post(client, "/v1/enrollments", router.enrollment(code, at=at))
    assert answer.status_code == 201, answer.text
    return router.holding(json.dumps(answer.json["lease"]).encode())


def now(transactions: Transactions) -> int:
    return unix(transactions.ports.clock.now())


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["Request-Id"]
    assert problem["next_action"]
    assert answer.headers["Cache-Control"] == "no-store"
    return problem


def test_a_router_enrolls_and_holds_a_verified_lease(
    client: FlaskClient, transactions: Transactions
) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    with transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
    assert router.lease is not None
    verify_lease(
        router.lease.to_bytes(), trust, now(transactions), instance_keyid=router.signer.keyid
    )
    lease = router.held
    assert (lease.epoch, lease.seq, lease.prev_sha256) == (1, 1, "0" * 64)
    assert lease.expires_at == now(transactions) + 24 * 3600
    assert lease.grace_until_at == license_.expires_at.timestamp()  # type: ignore[union-attr]
    assert lease.budget is not None
    assert lease.budget.tokens_total == 1_000_000


def test_enrolling_again_with_key_and_code_gives_the_first_bytes(
    client: FlaskClient, transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_lease_license(transactions)
    router, code = make_router(license_), make_code(transactions, license_)
    first = post(client, "/v1/enrollments", router.enrollment(code, at=now(transactions)))
    clock.advance(hours=25)
    again = post(client, "/v1/enrollments", router.enrollment(code, at=now(transactions)))
    assert (again.status_code, again.data) == (201, first.data)


def uses_left(transactions: Transactions) -> list[int]:
    """Return how often each code can still be used, the oldest first."""
    with transactions.reading(COMMAND) as context:
        codes = context.session.query(EnrollmentCode).order_by(EnrollmentCode.created_at)
        return [code.uses_allowed - code.uses for code in codes]


def test_after_a_lost_answer_a_new_code_gives_the_first_bytes_and_keeps_its_use(
    client: FlaskClient, transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_lease_license(transactions)
    router, lost = make_router(license_), make_code(transactions, license_)
    first = post(client, "/v1/enrollments", router.enrollment(lost, at=now(transactions)))
    clock.advance(minutes=10)
    code = make_code(transactions, license_)
    for hours in (0, 25):
        clock.advance(hours=hours)
        again = post(client, "/v1/enrollments", router.enrollment(code, at=now(transactions)))
        assert (again.status_code, again.data) == (201, first.data)
    assert uses_left(transactions) == [0, 1]
    with transactions.reading(COMMAND) as context:
        assert context.session.query(LeaseRow).count() == 1
    holding = router.holding(json.dumps(again.json["lease"]).encode())
    answer = post(client, "/v1/leases", holding.renewal("r1", at=now(transactions)))
    assert holding.holding(answer.data).held.clone_warning is None


@pytest.mark.parametrize(
    ("beyond", "why"),
    [
        ("renewed", "has renewed its lease since"),
        ("retired", "was released or retired"),
        ("released", "was released or retired"),
        ("another request", "by a different request"),
        ("another deployment", "in a different deployment from the code's"),
        ("emptied", "long ago"),
    ],
)
def test_a_key_beyond_its_enrollment_is_told_to_take_a_new_directory(
    client: FlaskClient, transactions: Transactions, clock: FakeClock, beyond: str, why: str
) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    changes: dict[str, Any] = {}
    coded = license_
    if beyond == "renewed":
        post(client, "/v1/leases", router.renewal("r1", at=now(transactions)))
    elif beyond == "retired":
        with transactions.writing(COMMAND) as context:
            retire_instance(context, router.held.instance_id, reason="gone")
    elif beyond == "released":
        post(client, "/v1/releases", router.release("x1", at=now(transactions)))
    elif beyond == "another request":
        changes = {"request_id": request_id("a state file that was lost")}
    elif beyond == "another deployment":
        coded = make_license_of_another_account(transactions)
    elif beyond == "emptied":
        with transactions.writing(COMMAND) as context:
            context.session.query(LeaseRow).update({"envelope": None})
    clock.advance(minutes=10)
    code = make_code(transactions, coded)
    request = router.enrollment(code, at=now(transactions), **changes)
    problem = refused(post(client, "/v1/enrollments", request), 403, "enrollment-refused")
    assert why in problem["detail"]
    assert "a new, empty directory with --state-dir" in problem["next_action"]
    assert uses_left(transactions) == [0, 1]


def test_ten_renewals_each_one_higher_and_chained(
    client: FlaskClient, transactions: Transactions, clock: FakeClock
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    for number in range(10):
        clock.advance(minutes=1)
        answer = post(client, "/v1/leases", router.renewal(f"r{number}", at=now(transactions)))
        assert answer.status_code == 200, answer.text
        following = router.holding(answer.data)
        assert router.lease is not None
        assert following.held.seq == router.held.seq + 1
        assert following.held.prev_sha256 == sha256_hex(router.lease.payload)
        assert following.held.clone_warning is None
        router = following


def test_a_request_id_gets_its_stored_answer_for_ever(
    client: FlaskClient, transactions: Transactions, clock: FakeClock
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    request = router.renewal("r1", at=now(transactions))
    first = post(client, "/v1/leases", request)
    later = router.holding(first.data)
    clock.advance(minutes=5)
    second = post(client, "/v1/leases", later.renewal("r2", at=now(transactions)))
    clock.advance(minutes=5)
    again = post(client, "/v1/leases", request)
    assert again.data == first.data != second.data
    with transactions.reading(COMMAND) as context:
        assert context.session.query(LeaseRow).count() == 3
        assert context.session.query(Fork).count() == 0


def test_an_answer_that_is_gone_is_said_to_be_replayed(
    client: FlaskClient, transactions: Transactions
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    request = router.renewal("r1", at=now(transactions))
    post(client, "/v1/leases", request)
    with transactions.writing(COMMAND) as context:
        context.session.query(LeaseRow).update({"envelope": None})
    refused(post(client, "/v1/leases", request), 409, "request-replayed")


def test_a_fork_is_recorded_and_warned_of(client: FlaskClient, transactions: Transactions) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    one = router.holding(post(client, "/v1/leases", router.renewal("a", at=now(transactions))).data)
    copy = post(client, "/v1/leases", router.renewal("b", at=now(transactions)))
    lease = Lease.parse(Envelope.parse(copy.data).payload)
    assert lease.clone_warning is True
    assert lease.seq == one.held.seq + 1
    assert lease.status == "active"
    with transactions.reading(COMMAND) as context:
        fork = context.session.query(Fork).one()
        assert (fork.prev_seq, fork.held_seq) == (1, 2)


def test_a_database_restored_from_a_backup_takes_the_chain_up_again(
    client: FlaskClient, transactions: Transactions
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    with transactions.reading(COMMAND) as context:
        row = context.session.query(Instance).one()
        backup = {column.name: getattr(row, column.name) for column in Instance.__table__.columns}
    ahead = router
    for name in ("r1", "r2"):
        answer = post(client, "/v1/leases", ahead.renewal(name, at=now(transactions)))
        ahead = ahead.holding(answer.data)
    with transactions.writing(COMMAND) as context:
        context.session.query(LeaseRow).filter(LeaseRow.seq > 1).delete()
        context.session.query(Instance).update(backup)
    request = ahead.renewal("r3", at=now(transactions))
    refused(post(client, "/v1/leases", request), 409, "previous-lease-required")
    assert ahead.lease is not None
    both = {"request": request.to_object(), "prev_lease": ahead.lease.to_object()}
    answer = post(client, "/v1/leases", both)
    assert answer.status_code == 200, answer.text
    healed = ahead.holding(answer.data)
    assert (healed.held.seq, healed.held.clone_warning) == (4, None)
    other = enroll_second(client, transactions, ahead)
    assert other.lease is not None
    foreign = {"request": healed.renewal("r4", at=now(transactions), prev_seq=99).to_object()}
    foreign["prev_lease"] = other.lease.to_object()
    refused(post(client, "/v1/leases", foreign), 422, "invalid-request")


def enroll_second(client: FlaskClient, transactions: Transactions, first: Router) -> Router:
    """Enroll another router after the first was retired, since the license is for one."""
    with transactions.writing(COMMAND) as context:
        retire_instance(context, first.held.instance_id, reason="a test")
        license_ = context.session.get_one(License, first.license_id)
    return enroll(client, transactions, license_, "second")


def test_more_instances_than_licensed_are_refused_and_burn_no_use(
    client: FlaskClient, transactions: Transactions
) -> None:
    license_ = make_lease_license(transactions)
    enroll(client, transactions, license_)
    code = make_code(transactions, license_)
    second = make_router(license_, "second")
    request = second.enrollment(code, at=now(transactions))
    refused(post(client, "/v1/enrollments", request), 403, "instances-exhausted")
    with transactions.writing(COMMAND) as context:
        instance = context.session.query(Instance).one()
        retire_instance(context, instance.id, reason="gone")
    assert post(client, "/v1/enrollments", request).status_code == 201


@pytest.mark.parametrize("spoiled", ["expired", "revoked", "used", "unknown", "offline", "held"])
def test_enrollment_is_refused(
    client: FlaskClient, transactions: Transactions, clock: FakeClock, spoiled: str
) -> None:
    license_ = make_lease_license(transactions, limits={"max_instances": 5})
    code = make_code(transactions, license_)
    router = make_router(license_)
    if spoiled == "expired":
        clock.advance(hours=24)
    elif spoiled == "revoked":
        with transactions.writing(COMMAND) as context:
            context.session.execute(text("UPDATE enrollment_codes SET revoked_at = created_at"))
    elif spoiled == "used":
        post(
            client,
            "/v1/enrollments",
            make_router(license_, "first").enrollment(code, at=now(transactions)),
        )
    elif spoiled == "unknown":
        code = "A" * 32
    elif spoiled == "offline":
        with transactions.writing(COMMAND) as context:
            context.session.query(License).update({"mode": "offline"})
    elif spoiled == "held":
        with transactions.writing(COMMAND) as context:
            context.session.add(
                Hold(
                    id="hld_1",
                    entitlement_id=license_.entitlement_id,
                    cause="staff",
                    reason="x",
                    opened_at=context.at,
                )
            )
    answer = post(client, "/v1/enrollments", router.enrollment(code, at=now(transactions)))
    refused(answer, 403, "enrollment-refused")


def test_a_hold_answers_a_signed_suspended_lease_that_heals_itself(
    client: FlaskClient, transactions: Transactions
) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    with transactions.writing(COMMAND) as context:
        context.session.add(
            Hold(
                id="hld_1",
                entitlement_id=license_.entitlement_id,
                cause="dispute",
                reason="x",
                opened_at=context.at,
            )
        )
    held = router.holding(
        post(client, "/v1/leases", router.renewal("r1", at=now(transactions))).data
    )
    assert (held.held.status, held.held.reason) == ("suspended", "on-hold")
    assert held.held.renew_at == (now(transactions) + 300, now(transactions) + 900)
    assert held.held.budget is None
    with transactions.writing(COMMAND) as context:
        context.session.query(Hold).update({"lifted_at": context.at})
    healed = held.holding(post(client, "/v1/leases", held.renewal("r2", at=now(transactions))).data)
    assert healed.held.status == "active"


def test_after_expiry_the_lease_is_ended(
    client: FlaskClient, transactions: Transactions, clock: FakeClock
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    clock.advance(hours=72)
    ended = router.holding(
        post(client, "/v1/leases", router.renewal("r1", at=now(transactions))).data
    ).held
    assert (ended.status, ended.reason) == ("ended", "expired")
    assert not ended.serves(now(transactions))


def test_the_current_license_reaches_leased_routers(
    client: FlaskClient, transactions: Transactions
) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    with transactions.reading(COMMAND) as context:
        deployment = context.session.get_one(Deployment, license_.deployment_id)
    successor = issue(
        transactions, make_entitlement(transactions, deployment, sku="pilot-30d", mode="lease")
    )
    answer = post(client, "/v1/licenses", router.renewal("l1", at=now(transactions)))
    assert answer.data == successor.envelope
    with transactions.reading(COMMAND) as context:
        assert context.session.query(LeaseRow).count() == 1


def test_a_release_frees_the_slot_and_may_be_repeated(
    client: FlaskClient, transactions: Transactions
) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    request = router.release("x1", at=now(transactions))
    for _ in range(2):
        answer = post(client, "/v1/releases", request)
        assert (answer.status_code, answer.data) == (204, b"")
    enroll(client, transactions, license_, "second")
    back = router.renewal("r1", at=now(transactions))
    refused(post(client, "/v1/leases", back), 403, "instances-exhausted")


def test_refusals_come_in_the_stated_order(client: FlaskClient, transactions: Transactions) -> None:
    license_ = make_lease_license(transactions)
    router = enroll(client, transactions, license_)
    at = now(transactions)
    huge = b" " * (40 * 1024 + 1)
    answer = client.post("/v1/leases", data=huge, content_type="text/plain")
    refused(answer, 413, "too-large")
    answer = client.post("/v1/leases", data=b"{}", content_type="text/plain")
    refused(answer, 415, "unsupported-media-type")
    refused(post(client, "/v1/leases", b"{}"), 400, "malformed-request")
    stranger = Router(make_router(license_, "stranger").signer, *_ids(license_), router.lease)
    refused(post(client, "/v1/leases", stranger.renewal("s", at=at)), 401, "unknown-instance")
    good = router.renewal("g", at=at)
    forged = Envelope(good.payload + b" ", good.payload_type, good.signatures)
    refused(post(client, "/v1/leases", forged), 401, "bad-signature")
    wrong = router.renewal("w", at=at, aud="https://elsewhere.example")
    problem = refused(post(client, "/v1/leases", wrong), 422, "wrong-audience")
    assert problem["errors"][0]["pointer"] == "/aud"
    spaced = router.sign(_Raw(b'{"typ": "lease-request.v1"}'))  # type: ignore[arg-type]
    refused(post(client, "/v1/leases", spaced), 422, "invalid-request")
    other = make_license_of_another_account(transactions)
    mismatch = router.renewal("m", at=at, license_id=other.id, license_sha256=other.payload_sha256)
    refused(post(client, "/v1/leases", mismatch), 403, "license-mismatch")
    enrollment = router.enrollment("A" * 32, at=at)
    refused(post(client, "/v1/leases", enrollment), 422, "invalid-request")


class _Raw:
    """A payload that is signed as it stands."""

    PAYLOAD_TYPE = "application/vnd.metrum.lease-request.v1+json"

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def to_bytes(self) -> bytes:
        return self._payload


def _ids(license_: License) -> tuple[str, str]:
    return license_.id, license_.payload_sha256 or ""


def make_license_of_another_account(transactions: Transactions) -> License:
    account, _ = make_customer(transactions, "eve@other.example", "Other")
    deployment = make_deployment(transactions, account)
    return issue(transactions, make_entitlement(transactions, deployment, mode="lease"))


def test_without_the_lease_key_the_answer_is_to_come_again(
    client: FlaskClient, transactions: Transactions, signers: MemorySigners
) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    signers.absent = {"lease"}
    request = router.renewal("r1", at=now(transactions))
    answer = post(client, "/v1/leases", request)
    refused(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    signers.absent = set()
    assert post(client, "/v1/leases", request).status_code == 200


@pytest.mark.asvs("4.1.2")
def test_plain_http_is_refused_off_loopback(
    client: FlaskClient, transactions: Transactions
) -> None:
    answer = client.get("/v1/keyset.json", environ_overrides={"SERVER_NAME": "10.1.2.3"})
    refused(answer, 403, "https-required")
    forged = client.get(
        "/v1/keyset.json",
        environ_overrides={"SERVER_NAME": "10.1.2.3"},
        headers={"X-Forwarded-Proto": "https"},
    )
    assert forged.status_code == 403


@pytest.mark.parametrize("path", ["/v1/keyset.json", "/v1/keysets/1.json"])
def test_documents_are_served_with_an_etag(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_bundle_is_signed_and_current(client: FlaskClient, transactions: Transactions) -> None:
    answer = client.get("/v1/revocations/bundle.json")
    with transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
        at = unix(context.at)
    bundle = verify_bundle(answer.data, trust, at).document
    assert bundle.entries == ()
    assert bundle.expires_at - bundle.issued_at == 35 * 86400


def test_a_keyset_that_never_was_is_a_problem(client: FlaskClient) -> None:
    refused_answer = client.get("/v1/keysets/99.json")
    assert refused_answer.status_code == 404
    assert refused_answer.content_type == "application/problem+json"


def test_an_offline_license_is_no_reason_for_a_code(transactions: Transactions) -> None:
    license_ = make_license(transactions)
    with pytest.raises(Conflict, match="offline"):
        make_code(transactions, license_)


def test_renewals_write_no_audit_row(client: FlaskClient, transactions: Transactions) -> None:
    router = enroll(client, transactions, make_lease_license(transactions))
    with transactions.reading(COMMAND) as context:
        before = context.session.query(AuditRow).count()
    post(client, "/v1/leases", router.renewal("r1", at=now(transactions)))
    with transactions.reading(COMMAND) as context:
        assert context.session.query(AuditRow).count() == before


def test_no_cookie_is_asked_or_set(client: FlaskClient) -> None:
    answer = client.get("/v1/keyset.json")
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")
