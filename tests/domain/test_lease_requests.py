"""Requests of instances: what is refused, with which code, and what is looked up before."""

from dataclasses import dataclass
from typing import Any

import pytest

from licensing.encoding import canonical
from licensing.enrollment import EnrollmentRequest, LeaseRequest
from licensing.envelope import Envelope, Signature
from portal.domain.lease_errors import (
    BadSignature,
    InvalidRequest,
    ProtocolError,
    UnknownInstance,
    WrongAudience,
)
from portal.domain.lease_requests import named_ids, verify_enrolling, verify_from_instance
from tests.factories.instances import ORIGIN, Router
from tests.fakes import MemorySigner
from tests.router.papers import AT, identifier, sign

KEY = MemorySigner(b"an instance")
ROUTER = Router(KEY, identifier("lic", 1), "a" * 64)
INSTANCE = identifier("ins", 1)


@dataclass(frozen=True)
class Portal:
    """A portal that moved."""

    origin: str = ORIGIN
    former_origins: frozenset[str] = frozenset({"https://old.example"})


def request(signer: MemorySigner = KEY, **changes: Any) -> Envelope:
    values: dict[str, Any] = {
        "typ": LeaseRequest.TYP,
        "iss": "instance",
        "issued_at": AT,
        "aud": ORIGIN,
        "request_id": identifier("req", 1),
        "license_id": ROUTER.license_id,
        "license_sha256": ROUTER.license_sha256,
        "instance_id": INSTANCE,
        "prev_epoch": 1,
        "prev_seq": 1,
        "prev_sha256": "b" * 64,
        "boot_id": "0" * 32,
        "bundle_version": 0,
        "keyset_version": 1,
        "software": "tests/1",
        **changes,
    }
    return sign(canonical(values), LeaseRequest.PAYLOAD_TYPE, signer)


def judge(envelope: Envelope) -> LeaseRequest:
    return verify_from_instance(
        envelope, LeaseRequest, Portal(), public_key=KEY.public_key, instance_id=INSTANCE
    ).document


@pytest.mark.parametrize("aud", [ORIGIN, "https://old.example"])
def test_a_request_for_the_portal_by_any_of_its_names_is_good(aud: str) -> None:
    assert judge(request(aud=aud)).aud == aud


STRANGER = MemorySigner(b"a stranger")
GOOD = request()
REFUSED: dict[str, tuple[Envelope, type[ProtocolError]]] = {
    "another key": (request(STRANGER), BadSignature),
    "another's signature": (
        Envelope(
            GOOD.payload,
            GOOD.payload_type,
            (Signature(KEY.keyid, request(STRANGER).signatures[0].sig),),
        ),
        BadSignature,
    ),
    "a good and another signature": (
        Envelope(
            GOOD.payload,
            GOOD.payload_type,
            (*GOOD.signatures, *request(STRANGER).signatures),
        ),
        BadSignature,
    ),
    "not its schema": (request(more=1), InvalidRequest),
    "not its schema and for another portal": (
        request(more=1, aud="https://else.example"),
        InvalidRequest,
    ),
    "for another portal": (request(aud="https://else.example"), WrongAudience),
    "for another portal and of another instance": (
        request(aud="https://else.example", instance_id=identifier("ins", 2)),
        WrongAudience,
    ),
    "of another instance": (request(instance_id=identifier("ins", 2)), UnknownInstance),
    "another kind": (ROUTER.enrollment("A" * 32, at=AT), InvalidRequest),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_first_thing_that_is_wrong_decides(name: str) -> None:
    envelope, refusal = REFUSED[name]
    with pytest.raises(refusal):
        judge(envelope)


def test_an_enrollment_is_judged_by_the_key_it_brings() -> None:
    good = ROUTER.enrollment("A" * 32, at=AT)
    assert verify_enrolling(good, Portal()).keyid == KEY.keyid
    forged = Envelope(good.payload, EnrollmentRequest.PAYLOAD_TYPE, request(STRANGER).signatures)
    for envelope, refusal in (
        (forged, BadSignature),
        (GOOD, InvalidRequest),
        (ROUTER.enrollment("A" * 32, at=AT, aud="https://else.example"), WrongAudience),
    ):
        with pytest.raises(refusal):
            verify_enrolling(envelope, Portal())


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        (b'{"request_id":"a","license_id":"b"}', ("a", "b")),
        (b'{"license_id":"b"}', ("", "")),
        (b'{"request_id":1,"license_id":"b"}', ("", "")),
        (b'{"request_id":"a","license_id":"\\u0000"}', ("", "")),
        ('{"request_id":"a","license_id":"é"}'.encode(), ("", "")),
        (b'["request_id","license_id"]', ("", "")),
        (b'"request_id"', ("", "")),
        (b"", ("", "")),
    ],
)
def test_only_ids_that_a_database_can_look_up_are_looked_up(
    payload: bytes, ids: tuple[str, str]
) -> None:
    assert named_ids(Envelope(payload, LeaseRequest.PAYLOAD_TYPE, ())) == ids


def test_nothing_is_looked_up_for_another_kind_of_document() -> None:
    with pytest.raises(InvalidRequest):
        named_ids(ROUTER.enrollment("A" * 32, at=AT))
