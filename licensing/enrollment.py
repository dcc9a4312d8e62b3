"""What an instance signs: the requests to enroll, to renew a lease, and to release it.

Source: "Payloads" of the signed documents; the lease protocol.
"""

from typing import ClassVar, Literal

from licensing.document import (
    BootId,
    BudgetId,
    Code,
    Count,
    Document,
    Fingerprint,
    InstanceId,
    LeaseId,
    LicenseId,
    Name,
    Origin,
    Part,
    RequestId,
    Sha256,
    Software,
    require_name,
)
from licensing.encoding import b64decode
from licensing.errors import LicensingError, MalformedPayload
from licensing.keys import loaded_key
from licensing.names import (
    ENROLLMENT_REQUEST_TYPE,
    LEASE_REQUEST_TYPE,
    RELEASE_REQUEST_TYPE,
)


class InstanceDocument(Document, frozen=True, kw_only=True):
    """What all requests share. `iss` is the literal `instance`."""

    iss: Literal["instance"]
    aud: Origin
    """The portal's public origin."""
    request_id: RequestId


class EnrollmentRequest(InstanceDocument, frozen=True, kw_only=True):
    """An `enrollment-request.v1` payload, signed by the key it brings."""

    PAYLOAD_TYPE: ClassVar[str] = ENROLLMENT_REQUEST_TYPE
    TYP: ClassVar[str] = "enrollment-request.v1"

    code: Code
    public_key: str
    """Base64 of 32 bytes."""
    fingerprint: Fingerprint | None = None
    label: Name | None = None
    software: Software
    license_id: LicenseId
    license_sha256: Sha256

    def check(self) -> None:
        """Check the key and the label's length."""
        try:
            loaded_key(b64decode(self.public_key))
        except LicensingError as error:
            raise MalformedPayload(error.detail) from error
        require_name(self.label, "label")


class Usage(Part, frozen=True, kw_only=True):
    """What this instance used since its budget began."""

    budget_id: BudgetId
    tokens_total: Count
    requests_total: Count


class LeaseRequest(InstanceDocument, frozen=True, kw_only=True):
    """A `lease-request.v1` payload. `prev_*` name the lease the instance holds."""

    PAYLOAD_TYPE: ClassVar[str] = LEASE_REQUEST_TYPE
    TYP: ClassVar[str] = "lease-request.v1"

    license_id: LicenseId
    license_sha256: Sha256
    instance_id: InstanceId
    fingerprint: Fingerprint | None = None
    prev_epoch: Count
    prev_seq: Count
    prev_sha256: Sha256
    boot_id: BootId
    """32 hex digits, new at each start of the router."""
    bundle_version: Count
    keyset_version: Count
    software: Software
    usage: Usage | None = None


class ReleaseRequest(InstanceDocument, frozen=True, kw_only=True):
    """A `release-request.v1` payload: the instance gives its lease up."""

    PAYLOAD_TYPE: ClassVar[str] = RELEASE_REQUEST_TYPE
    TYP: ClassVar[str] = "release-request.v1"

    instance_id: InstanceId
    lease_id: LeaseId
