"""This implementation's answers for conformance: `python -m router.conformance`.

Reads one JSON request a line on standard input and writes one JSON answer a line, in order. What
the requests and answers are is in `docs/router-authors/command-line.md`.

Invariants: the answers come from the code the router runs; nothing is decided here. A request that
cannot be read gets `{"id": …, "error": …}`, and the next one is read.
"""

import contextlib
import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

import msgspec

from licensing.bounds import REJECTED, excess
from licensing.enrollment import InstanceDocument, LeaseRequest, ReleaseRequest
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError, MalformedEnvelope
from licensing.keys import PublicKey
from licensing.license import Budget, License
from licensing.revocation import NO_BUNDLE, BundleMemory, RevocationBundle
from licensing.verify import (
    KeysetTrust,
    verify_bundle,
    verify_enrollment,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
    verify_request,
)
from router.config import LicenseConfig, RevocationConfig
from router.documents.decision import Decision, Evidence, decide
from router.errors import RouterError
from router.lease.store import LeaseState
from router.network.agent import Grounds, accept_lease
from router.state.budgets import LimitExceeded, Terms
from router.state.store import State, fresh_state

_REQUESTS: Final[dict[str, type[InstanceDocument]]] = {
    "lease-request": LeaseRequest,
    "release-request": ReleaseRequest,
}
Object = dict[str, Any]


def _data(value: str | None) -> bytes | None:
    return None if value is None else b64decode(value)


def answer_verify(request: Object) -> Object:
    """Verify one document; a license is judged as by a router that has nothing else."""
    try:
        if request["options"]["kind"] == "license":
            code = _refusal(request)
        else:
            code = _verify_document(b64decode(request["keyset_b64"]), request)
    except LicensingError as error:
        code = error.code
    return {"result": "valid"} if code is None else {"result": "invalid", "code": code}


def _refusal(request: Object) -> str | None:
    """Return the code a router refuses a license with; a missing lease does not count."""
    options, floors = request["options"], request["options"].get("floors", {})
    state: Object = {}
    fingerprint = options.get("fingerprint")
    with contextlib.suppress(LicensingError):  # A license that cannot be read has no floor.
        known = License.parse(Envelope.parse(b64decode(request["envelope_b64"])).payload)
        memory = _remembered(floors.get("bundle_version", 0), _data(options.get("bundle_b64")))
        state = {
            "revisions": {known.deployment_id: floors.get("revision", 0)},
            "keysets": {known.iss: floors.get("keyset_version", 0)},
            "bundles": {known.iss: msgspec.to_builtins(memory)},
        }
        if (
            fingerprint is None
        ):  # The binding is not tested here, so use a fingerprint that matches.
            fingerprint = next(iter(known.binding.fingerprints), None)
    decision, _ = _decide(
        {
            "now_at": request["now_at"],
            "state": state,
            "config": {
                "instance_fingerprint": fingerprint or "",
                "revocation": {
                    "mode": "file",
                    "require_current_bundle": options.get("require_current_bundle", False),
                },
            },
            "files": {
                "keyset_b64": request["keyset_b64"],
                "license_b64": request["envelope_b64"],
                "bundle_b64": options.get("bundle_b64"),
            },
        }
    )
    return None if decision.cause == "no-lease" else decision.cause


def _remembered(version: int, bundle: bytes | None) -> BundleMemory:
    """Return the memory of a bundle of which only the version is given: its entries are these."""
    memory = msgspec.structs.replace(NO_BUNDLE, version=version)
    with contextlib.suppress(LicensingError):
        if version and bundle is not None:
            envelope = Envelope.parse(bundle, max_bytes=MAX_BUNDLE_BYTES)
            entries = RevocationBundle.parse(envelope.payload).entries
            return msgspec.structs.replace(memory, entries={e.license_id: e for e in entries})
    return memory


def _verify_document(keyset: bytes, test: Object) -> str | None:
    """Verify a vector's document, any but a license, as its options say.

    Returns the code of a lease that is genuine and goes beyond its license.

    Raises:
        LicensingError: it is refused.
    """
    at, options = test["now_at"], test["options"]
    data, kind = b64decode(test["envelope_b64"]), options["kind"]
    if kind == "keyset":
        if options.get("update"):
            steps = [b64decode(step) for step in options.get("steps_b64", [])]
            verify_keyset_update(data, verify_keyset(keyset, at), at, steps=steps)
        else:
            verify_keyset(data, at)
    elif kind == "enrollment-request":
        verify_enrollment(Envelope.parse(data))
    elif kind in _REQUESTS:
        key = PublicKey.from_base64(options["public_key_b64"])
        verify_request(Envelope.parse(data), _REQUESTS[kind], key)
    else:
        trust = KeysetTrust(verify_keyset(keyset, at).document)
        if kind == "lease":
            lease = verify_lease(data, trust, at, instance_keyid=options.get("instance_keyid"))
            if "license_b64" in options:
                license_ = verify_license(b64decode(options["license_b64"]), trust, at)
                if excess(lease.document, license_, at, options.get("periods", {})) is not None:
                    return REJECTED
        else:
            floor = options.get("floors", {}).get("bundle_version", 0)
            current = options.get("require_current_bundle", False)
            verify_bundle(data, trust, at, floor=floor, require_current=current)
    return None


def answer_decide(request: Object) -> Object:
    """Decide from state and files at an instant."""
    decision, after = _decide(request)
    return {
        "serving": decision.serving,
        "status": decision.status,
        "reason": decision.reason,
        "ends_at": decision.ends_at,
        "license_id": decision.facts.get("license_id"),
        "budget_tokens": decision.facts.get("budget_tokens"),
        "state": msgspec.to_builtins(after),
    }


def _decide(request: Object) -> tuple[Decision, State]:
    config = request.get("config", {})
    revocation = config.get("revocation", {})
    policy = LicenseConfig(
        path=Path("license.json"),
        state_path=Path("state.json"),
        instance_fingerprint=config.get("instance_fingerprint", ""),
        grace_period_s=config.get("grace_s", 86_400),
        revocation=RevocationConfig(
            mode=revocation.get("mode", "off"),
            path=Path("bundle.json"),
            require_current_bundle=revocation.get("require_current_bundle", False),
            fail_closed_on_bundle_error=revocation.get("fail_closed_on_bundle_error", True),
        ),
    )
    held = request.get("state")
    state = fresh_state() if held is None else msgspec.convert(held, State)
    now, files = request["now_at"], request["files"]
    keyset = _data(files.get("keyset_b64"))
    trust, error, readable = None, None, keyset is not None
    if keyset is not None:
        try:
            trust = KeysetTrust(verify_keyset(keyset, now).document)
        except MalformedEnvelope:
            readable = False
        except LicensingError as refused:
            error = refused
    return decide(
        policy,
        state,
        Evidence(
            now=now,
            license=_data(files.get("license_b64")),
            trust=trust,
            keyset_readable=readable,
            keyset_error=error,
            bundle=_data(files.get("bundle_b64")),
            lease=_data(files.get("lease_b64")),
            fetched_license=_data(files.get("fetched_license_b64")),
            instance_keyid=request.get("instance_keyid"),
        ),
        seats=request.get("seats", 0),
    )


def answer_accept_lease(request: Object) -> Object:
    """Say whether a lease may be installed."""
    now = request["now_at"]
    trust = KeysetTrust(verify_keyset(b64decode(request["keyset_b64"]), now).document)
    license_ = verify_license(b64decode(request["license_b64"]), trust, now)
    held = request.get("held_b64")
    state = LeaseState(
        secret="00" * 32,
        lease=None if held is None else b64decode(held).decode(),
        pending=request["pending"],
    )
    try:
        accept_lease(
            Envelope.parse(b64decode(request["lease_b64"])),
            Grounds(license_, trust, now, periods=request.get("periods", {})),
            request["instance_keyid"],
            state,
            fresh=request.get("fresh", False),
        )
    except (LicensingError, RouterError):
        return {"result": "rejected"}
    return {"result": "installed"}


def answer_renewal_moment(request: Object) -> Object:
    """Pick the moment of renewal inside the window of a lease."""
    lease = b64decode(request["lease_b64"]).decode()
    return {"moment": LeaseState(secret=request["secret"], lease=lease).renewal_moment()}


def answer_budget(request: Object) -> Object:
    """Do one act on the budgets of a state."""
    state = msgspec.convert(request["state"], State) if request.get("state") else fresh_state()
    terms = Terms(request["deployment_id"], msgspec.convert(request["budget"], Budget), None, None)
    budgets, refused = state.budgets, False
    act, name = request["act"], request.get("reservation", "")
    at = request.get("now_at", 0)
    if act == "serve":
        budgets = budgets.serving(terms)
    elif act == "reserve":
        try:
            budgets = budgets.reserve(name, terms, request["tokens"], at)
        except LimitExceeded:
            refused = True
    elif act == "settle":
        budgets = budgets.settle(name, request.get("tokens"), at)
    elif act == "crash":
        for each in tuple(budgets.reservations):
            budgets = budgets.settle(each, None, at)
    else:
        raise ValueError(f"no act {act!r}")
    return {
        "refused": refused,
        "left": budgets.left(terms, at),
        "state": msgspec.to_builtins(msgspec.structs.replace(state, budgets=budgets)),
    }


ANSWERS: Final = {
    "verify": answer_verify,
    "decide": answer_decide,
    "accept_lease": answer_accept_lease,
    "renewal_moment": answer_renewal_moment,
    "budget": answer_budget,
}


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        number: Any = None
        try:
            request = json.loads(line)
            number = request.get("id")
            answer = ANSWERS[request["op"]](request)
        except (KeyError, ValueError, TypeError, AttributeError, LicensingError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps({"id": number, **answer}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
