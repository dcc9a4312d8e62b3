"""This implementation's answers for conformance: `python -m router.conformance`.

Reads one JSON request a line on standard input and writes one JSON answer a line, in order. What
the requests and answers are is in `docs/router-authors/command-line.md`.

Invariants: the answers come from the code the router runs, nothing is decided here. A request that
cannot be read gets `{"id": …, "error": …}` and the next one is read.
"""

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

import msgspec

from licensing.conformance import verify_vector
from licensing.envelope import Envelope
from licensing.errors import LicensingError, MalformedEnvelope
from licensing.license import Budget
from licensing.verify import KeysetTrust, verify_keyset, verify_license
from router.config import LicenseConfig, RevocationConfig
from router.documents.decision import Evidence, decide
from router.errors import RouterError
from router.lease.store import LeaseState
from router.network.agent import Grounds, accept_lease
from router.state.budgets import LimitExceeded, Terms
from router.state.store import State, fresh_state

Object = dict[str, Any]


def _data(value: str | None) -> bytes | None:
    return None if value is None else b64decode(value)


def answer_verify(request: Object) -> Object:
    """Verify one document."""
    try:
        verify_vector(b64decode(request["keyset_b64"]), request)
    except LicensingError as error:
        return {"result": "invalid", "code": error.code}
    return {"result": "valid"}


def answer_decide(request: Object) -> Object:
    """Decide from state and files at an instant."""
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
    decision, after = decide(
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
    return {
        "serving": decision.serving,
        "status": decision.status,
        "reason": decision.reason,
        "ends_at": decision.ends_at,
        "license_id": decision.facts.get("license_id"),
        "budget_tokens": decision.facts.get("budget_tokens"),
        "state": msgspec.to_builtins(after),
    }


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
            Grounds(license_, trust, now),
            request["instance_keyid"],
            state,
            fresh=request.get("fresh", False),
        )
    except (LicensingError, RouterError):
        return {"result": "rejected"}
    return {"result": "installed"}


def answer_renewal_moment(request: Object) -> Object:
    """Pick the moment inside the window of a lease."""
    lease = b64decode(request["lease_b64"]).decode()
    return {"moment": LeaseState(secret=request["secret"], lease=lease).renewal_moment()}


def answer_budget(request: Object) -> Object:
    """Do one thing to the budgets of a state."""
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
