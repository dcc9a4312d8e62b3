"""The lease protocol without a network: requests and answers as files.

A request is the signed envelope that would be posted, or `{"request", "prev_lease"}` where the
portal asks for the lease at hand. An answer is one JSON object:

    {"lease": …, "license": …, "revocation_bundle": …, "keyset": …, "instance_id": …}

`lease` is required; the rest is used if it is there and newer. `instance_id` is in the answer to an
enrollment. A bare lease envelope is an answer, too.

Invariants: the lease is installed last, by the same rules as one from the network, so that an
interrupted install can be repeated. A file never sets the clock.

Source: "Courier" of the lease protocol.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from licensing.courier import PartsError, from_parts, is_parts
from licensing.encoding import parse_json
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.keys import Keyset
from licensing.lease import Lease
from licensing.verify import KeysetTrust, Verified, verify_bundle
from router.documents.keysets import take_update
from router.errors import RouterError, StateError, UsageError
from router.files import read_at_most, write_atomically
from router.lease.store import BUNDLE_FILE, LICENSE_FILE, LeaseStore
from router.network.agent import (
    Enrollment,
    Grounds,
    enrollment_request,
    install_lease,
    newer_license,
    renewal_request,
)

MAX_ANSWER_BYTES: Final = 24 * 1024 * 1024
_DOCUMENTS: Final = ("license", "revocation_bundle", "keyset")


class NotAnAnswer(RouterError):
    """The file is not an answer to a courier request."""

    code = "not-an-answer"


@dataclass(frozen=True)
class CourierAnswer:
    """The contents of an answer file."""

    lease: Envelope
    instance_id: str | None
    documents: dict[str, bytes]
    """Whichever of `license`, `revocation_bundle` and `keyset` the file has."""


def write_request(
    store: LeaseStore,
    grounds: Grounds,
    enrollment: Enrollment | None,
    *,
    with_lease: bool = False,
) -> bytes:
    """Return the request to carry to the portal: the pending one, or one that enrolls.

    Raises:
        UsageError: the router is not enrolled and there is nothing to enroll with.
        StateError: the lease was given up, or nothing can be written here.
    """
    state = store.load()
    if state.lease is None:
        if enrollment is None:
            raise UsageError(
                "this router is not enrolled: name an enrollment code with --code-file FILE"
            )
        state = enrollment.remembered(state)
        store.save(state)
        _, request = enrollment_request(store, state, grounds, enrollment)
        return _line(request.to_object())
    if state.released is not None or state.releasing is not None:
        raise StateError("the lease was given up: run router-license renew --again first")
    state, request = renewal_request(store, state, grounds)
    held = state.envelope()
    if with_lease and held is not None:
        return _line({"request": request.to_object(), "prev_lease": held.to_object()})
    return _line(request.to_object())


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def read_answer(data: bytes) -> CourierAnswer:
    """Read an answer, as a file or as the text of its QR codes.

    Raises:
        NotAnAnswer: it is neither; the message says what is wrong.
    """
    try:
        text = data.decode("utf-8", "replace")
        if is_parts(text):
            data = from_parts(text.splitlines())
        value = parse_json(data, max_bytes=MAX_ANSWER_BYTES)
        if not isinstance(value, dict):
            raise NotAnAnswer("the file is not an answer: it is not a JSON object")
        if "payload" in value:
            return CourierAnswer(Envelope.from_object(value), None, {})
        if "code" in value and "lease" not in value:
            raise NotAnAnswer(f"the portal refused: {value.get('detail', value['code'])}")
        documents = {
            name: json.dumps(value[name], separators=(",", ":")).encode()
            for name in _DOCUMENTS
            if name in value
        }
        instance_id = value.get("instance_id")
        return CourierAnswer(
            Envelope.from_object(value["lease"]),
            None if instance_id is None else str(instance_id),
            documents,
        )
    except PartsError as error:
        raise NotAnAnswer(str(error)) from error
    except KeyError as error:
        raise NotAnAnswer("the file is not an answer: it contains no lease") from error
    except LicensingError as error:
        raise NotAnAnswer(f"the file is not an answer: {error.detail}") from error


def install_answer(
    store: LeaseStore, grounds: Grounds, held_keyset: Verified[Keyset], answer: CourierAnswer
) -> tuple[Lease, list[str]]:
    """Install an answer; return the lease and what else was installed.

    Raises:
        LicensingError, RouterError: something does not verify or does not answer this router's
            request; the current lease stays.
    """
    state = store.load()
    envelope = state.envelope()
    if envelope is not None and envelope.payload == answer.lease.payload:
        held = state.held()
        assert held is not None
        return held, []
    taken: list[str] = []
    documents = answer.documents
    if "keyset" in documents:
        update = take_update(
            store.directory, documents["keyset"], held_keyset, grounds.at, _no_step
        )
        if update is not None:
            grounds = replace(grounds, trust=KeysetTrust(update.document))
            taken.append("keyset")
    if "license" in documents:
        data = documents["license"]
        if newer_license(data, grounds) and _keep(store, LICENSE_FILE, data):
            taken.append("license")
    if "revocation_bundle" in documents:
        data = documents["revocation_bundle"]
        verify_bundle(data, grounds.trust, grounds.at, require_current=False)
        if _keep(store, BUNDLE_FILE, data):
            taken.append("revocation_bundle")
    lease = install_lease(
        store, state, grounds, answer.lease, instance_id=answer.instance_id, courier=True
    )
    return lease, taken


def _keep(store: LeaseStore, name: str, data: bytes) -> bool:
    path = store.directory / name
    if read_at_most(path, len(data)) == data:
        return False
    write_atomically(path, data)
    return True


def _no_step(version: int) -> bytes:
    raise RouterError(
        f"keyset version {version} is needed first: fetch /v1/keysets/{version}.json from the "
        "portal and install it",
        code="keyset-step-missing",
    )
