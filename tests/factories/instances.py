"""Routers that sign as an instance does, for the server's side of the lease protocol."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from licensing.document import Document
from licensing.encoding import b64encode, crockford, sha256_hex
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope, Signature, pae
from licensing.lease import Lease
from portal.db.licenses import License
from portal.services.context import Actor, Transactions
from portal.services.enrollments import create_enrollment_code
from tests.fakes import MemorySigner

COMMAND = Actor("command")
ORIGIN = "http://127.0.0.1:8000"


def request_id(text: str) -> str:
    """Return a well-formed request id made from any text."""
    return f"req_{crockford(hashlib.sha256(text.encode()).digest()[:16])}"


@dataclass(frozen=True)
class Router:
    """An instance's key, the license it has, and the lease it holds."""

    signer: MemorySigner
    license_id: str
    license_sha256: str
    lease: Envelope | None = None

    @property
    def held(self) -> Lease:
        """The lease at hand."""
        assert self.lease is not None
        return Lease.parse(self.lease.payload)

    def sign(self, document: Document) -> Envelope:
        """Sign as the instance."""
        payload = document.to_bytes()
        signature = self.signer.sign(pae(document.PAYLOAD_TYPE, payload))
        signatures = (Signature(self.signer.keyid, signature),)
        return Envelope(payload, document.PAYLOAD_TYPE, signatures)

    def holding(self, envelope: bytes) -> "Router":
        """Return the router with this lease in its hand."""
        return replace(self, lease=Envelope.parse(envelope))

    def enrollment(self, code: str, *, at: int, **changes: Any) -> Envelope:
        """Sign an enrollment request."""
        values: dict[str, Any] = {
            "typ": EnrollmentRequest.TYP,
            "iss": "instance",
            "issued_at": at,
            "aud": ORIGIN,
            "request_id": request_id(f"enroll {self.signer.keyid}"),
            "code": code,
            "public_key": b64encode(self.signer.public_key),
            "software": "tests/1",
            "license_id": self.license_id,
            "license_sha256": self.license_sha256,
        }
        return self.sign(EnrollmentRequest(**{**values, **changes}))

    def renewal(self, name: str, *, at: int, **changes: Any) -> Envelope:
        """Sign a lease request that continues the lease at hand."""
        held = self.held
        assert self.lease is not None
        values: dict[str, Any] = {
            "typ": LeaseRequest.TYP,
            "iss": "instance",
            "issued_at": at,
            "aud": ORIGIN,
            "request_id": request_id(name),
            "license_id": self.license_id,
            "license_sha256": self.license_sha256,
            "instance_id": held.instance_id,
            "prev_epoch": held.epoch,
            "prev_seq": held.seq,
            "prev_sha256": sha256_hex(self.lease.payload),
            "boot_id": "0" * 32,
            "bundle_version": 0,
            "keyset_version": 1,
            "software": "tests/1",
        }
        return self.sign(LeaseRequest(**{**values, **changes}))

    def release(self, name: str, *, at: int, **changes: Any) -> Envelope:
        """Sign a release request."""
        values: dict[str, Any] = {
            "typ": ReleaseRequest.TYP,
            "iss": "instance",
            "issued_at": at,
            "aud": ORIGIN,
            "request_id": request_id(name),
            "instance_id": self.held.instance_id,
            "lease_id": self.held.lease_id,
        }
        return self.sign(ReleaseRequest(**{**values, **changes}))


def make_router(license_: License, name: str = "router") -> Router:
    """Make a router that has the license and no lease yet."""
    return Router(MemorySigner(name.encode()), license_.id, license_.payload_sha256 or "")


def make_code(transactions: Transactions, license_: License, uses: int = 1) -> str:
    """Make an enrollment code for the license's deployment."""
    with transactions.writing(COMMAND) as context:
        code, _ = create_enrollment_code(
            context, deployment_id=license_.deployment_id, uses=uses, created_by=None
        )
    return code
