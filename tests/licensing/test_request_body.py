"""The body of a request: an envelope, alone or with the lease at hand."""

from typing import Any

import pytest

from devtools.vectors.build import signed
from licensing.encoding import parse_json
from licensing.envelope import Envelope
from licensing.errors import MalformedEnvelope
from licensing.request_body import read_lease_request, read_request

LEASE = Envelope.parse(signed("lease"))
ONE: dict[str, Any] = LEASE.to_object()
TWO = {**ONE, "signatures": [*ONE["signatures"], {**ONE["signatures"][0], "keyid": "0" * 64}]}


@pytest.mark.parametrize("read", [read_request, read_lease_request])
def test_a_request_comes_alone(read: Any) -> None:
    body = read(ONE)
    assert body.request == LEASE
    assert body.prev_lease is None
    assert body.keyid == LEASE.signatures[0].keyid


def test_a_lease_comes_along_with_all_its_signatures() -> None:
    body = read_lease_request({"request": ONE, "prev_lease": TWO})
    assert body.request == LEASE
    assert body.prev_lease is not None
    assert parse_json(body.prev_lease, max_bytes=len(body.prev_lease)) == TWO


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        TWO,
        {"request": ONE},
        {"prev_lease": ONE},
        {"request": TWO, "prev_lease": ONE},
        {"request": ONE, "prev_lease": ONE, "more": 1},
    ],
)
def test_nothing_else_is_a_request(value: object) -> None:
    with pytest.raises(MalformedEnvelope):
        read_lease_request(value)


def test_what_is_wrong_with_the_lease_is_said_of_the_lease() -> None:
    with pytest.raises(MalformedEnvelope, match="prev_lease: "):
        read_lease_request({"request": ONE, "prev_lease": {}})


def test_a_lease_is_not_taken_where_none_belongs() -> None:
    with pytest.raises(MalformedEnvelope):
        read_request({"request": ONE, "prev_lease": ONE})
