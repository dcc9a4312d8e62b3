"""The revocation bundle: which licenses no longer count.

Source: `revocation-bundle.v1` of the signed documents.
"""

from typing import ClassVar, Literal

from licensing.document import (
    Document,
    LicenseId,
    Part,
    Positive,
    Token,
    UnixTime,
    require,
    require_sorted,
)
from licensing.names import BUNDLE_TYPE


class RevocationEntry(Part, frozen=True, kw_only=True):
    """One license that is revoked, suspended or superseded from an instant on."""

    license_id: LicenseId
    status: Literal["revoked", "suspended", "superseded"]
    effective_at: UnixTime
    reason: Literal["replaced", "withdrawn", "on-hold", "key-compromise"]
    superseded_by: LicenseId | None = None


class RevocationBundle(Document, frozen=True, kw_only=True):
    """A `revocation-bundle.v1` payload. Entries are sorted by license id, each once."""

    PAYLOAD_TYPE: ClassVar[str] = BUNDLE_TYPE
    TYP: ClassVar[str] = "revocation-bundle.v1"

    product: Token
    version: Positive
    expires_at: UnixTime
    entries: tuple[RevocationEntry, ...]

    def check(self) -> None:
        """Check order, uniqueness and times."""
        require_sorted(tuple(entry.license_id for entry in self.entries), "entries")
        require(self.issued_at < self.expires_at, "expires_at must be after issued_at")
        require(self.version >= self.issued_at, "version is never below issued_at")

    def entry(self, license_id: str) -> RevocationEntry | None:
        """Return what the bundle says of a license, in effect or not yet."""
        return next((entry for entry in self.entries if entry.license_id == license_id), None)
