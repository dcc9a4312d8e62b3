"""The revocation bundle: which licenses no longer count, and what is remembered of it.

Source: `revocation-bundle.v1` of the signed documents.
"""

from typing import ClassVar, Final, Literal

import msgspec

from licensing.document import (
    Count,
    Document,
    LicenseId,
    Part,
    Positive,
    Sha256,
    Token,
    UnixTime,
    require,
    require_sorted,
)
from licensing.keys import ZERO_SHA256
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


class BundleMemory(Part, frozen=True, kw_only=True):
    """What the highest revocation bundle seen said of the licenses used here."""

    version: Count
    sha256: Sha256
    """Of its file."""
    entries: dict[str, RevocationEntry] = msgspec.field(default_factory=dict)
    """Our own, by license id; each applies until a higher version lacks it."""

    def seen(self, bundle: RevocationBundle, sha256: str, license_id: str) -> "BundleMemory":
        """Return what is known once a verified bundle was seen; an older one changes nothing.

        `sha256` is of its file; `license_id` is the license in use.
        """
        if bundle.version < self.version:
            return self
        ours = {*self.entries, license_id}
        entries = {each: entry for each in ours if (entry := bundle.entry(each)) is not None}
        if bundle.version == self.version:
            entries, sha256 = {**entries, **self.entries}, self.sha256
        return BundleMemory(version=bundle.version, sha256=sha256, entries=entries)


NO_BUNDLE: Final = BundleMemory(version=0, sha256=ZERO_SHA256)
"""Where no bundle was seen yet."""
