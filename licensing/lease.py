"""The lease: a short-lived right to serve, held by one instance.

Source: `lease.v1` of the signed documents; the lease protocol.
"""

from typing import ClassVar, Literal

from licensing.document import (
    AccountId,
    Count,
    DeploymentId,
    Document,
    Fingerprint,
    InstanceId,
    Keyid,
    LeaseId,
    LicenseId,
    Positive,
    RequestId,
    Sha256,
    Token,
    UnixTime,
    require,
    require_sorted,
)
from licensing.keys import ZERO_SHA256
from licensing.license import Budget, Limits
from licensing.names import LEASE_TYPE


class Lease(Document, frozen=True, kw_only=True):
    """A `lease.v1` payload. Times are Unix seconds.

    `features` and `limits` can only narrow the license's; `budget` replaces it. How far a lease may
    go is said by `licensing.bounds`.
    """

    PAYLOAD_TYPE: ClassVar[str] = LEASE_TYPE
    TYP: ClassVar[str] = "lease.v1"

    product: Token
    lease_id: LeaseId
    deployment_id: DeploymentId
    license_id: LicenseId
    license_revision: Positive
    license_sha256: Sha256
    customer_id: AccountId
    instance_id: InstanceId
    instance_keyid: Keyid
    fingerprint: Fingerprint | None = None
    epoch: Positive
    seq: Positive
    prev_sha256: Sha256
    """Of the payload of the lease before; 64 zeros for the first of all."""
    request_id: RequestId
    request_sha256: Sha256
    status: Literal["active", "suspended", "revoked", "superseded", "ended"]
    reason: Token | None = None
    superseded_by: LicenseId | None = None
    features: tuple[Token, ...] | None = None
    limits: Limits | None = None
    budget: Budget | None = None
    expires_at: UnixTime
    grace_until_at: UnixTime
    renew_at: tuple[UnixTime, UnixTime]
    """Earliest and latest moment to renew."""
    bundle_version: Count
    keyset_version: Count
    clone_warning: Literal[True] | None = None

    def check(self) -> None:
        """Check the rules between fields."""
        require(self.expires_at <= self.grace_until_at, "grace_until_at is before expires_at")
        require(self.renew_at[0] <= self.renew_at[1], "renew_at must be earliest, then latest")
        require(
            (self.epoch, self.seq) != (1, 1) or self.prev_sha256 == ZERO_SHA256,
            "the first lease of all has 64 zeros as prev_sha256",
        )
        require(
            self.superseded_by is None or self.status == "superseded",
            "superseded_by stands only with status superseded",
        )
        if self.features is not None:
            require_sorted(self.features, "features")
        if self.limits is not None:
            self.limits.check()
        if self.budget is not None:
            self.budget.check()

    def serves(self, at: int) -> bool:
        """Say whether this lease permits serving at this instant (Unix time), grace included."""
        return self.status == "active" and at < self.grace_until_at
