"""What a test vector asks of this verifier: see `docs/router-authors/conformance.md`."""

import base64
from typing import Any, Final

from licensing.enrollment import InstanceDocument, LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope
from licensing.keys import PublicKey
from licensing.verify import (
    Floors,
    KeysetTrust,
    verify_bundle,
    verify_enrollment,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
    verify_request,
)

REQUESTS: Final[dict[str, type[InstanceDocument]]] = {
    "lease-request": LeaseRequest,
    "release-request": ReleaseRequest,
}
Object = dict[str, Any]


def verify_vector(keyset: bytes, test: Object) -> None:
    """Verify a vector's document as its options say.

    Raises:
        LicensingError: it is refused.
    """
    at, options = test["now_at"], test["options"]
    data = base64.b64decode(test["envelope_b64"])
    kind = options["kind"]
    if kind == "keyset":
        if not options.get("update"):
            verify_keyset(data, at)
            return
        steps = [base64.b64decode(step) for step in options.get("steps_b64", [])]
        verify_keyset_update(data, verify_keyset(keyset, at), at, steps=steps)
        return
    if kind == "enrollment-request":
        verify_enrollment(Envelope.parse(data))
        return
    if kind in REQUESTS:
        key = PublicKey.from_base64(options["public_key_b64"])
        verify_request(Envelope.parse(data), REQUESTS[kind], key)
        return
    trust = KeysetTrust(verify_keyset(keyset, at).document)
    floors = Floors(**options.get("floors", {}))
    current = options.get("require_current_bundle", False)
    if kind == "license":
        bundle = options.get("bundle_b64")
        verify_license(
            data,
            trust,
            at,
            fingerprint=options.get("fingerprint"),
            floors=floors,
            bundle=None if bundle is None else base64.b64decode(bundle),
            require_current_bundle=current,
        )
    elif kind == "lease":
        verify_lease(data, trust, at, instance_keyid=options.get("instance_keyid"))
    else:
        verify_bundle(data, trust, at, floor=floors.bundle_version, require_current=current)
