"""The license: what a deployment may do, and until when.

Source: `license.v1` of the signed documents.
"""

from typing import ClassVar, Literal

from licensing.document import (
    AccountId,
    BudgetId,
    Count,
    DeploymentId,
    Document,
    Fingerprint,
    LicenseId,
    Name,
    Origin,
    Part,
    Positive,
    Token,
    UnixTime,
    require,
    require_name,
    require_sorted,
)
from licensing.names import LICENSE_TYPE


class Limits(Part, frozen=True, kw_only=True):
    """Upper bounds; what is absent is not limited."""

    tokens_per_window: Positive | None = None
    window_s: Positive | None = None
    """Length of the rolling window in seconds; stands exactly beside `tokens_per_window`."""
    max_concurrency: Positive | None = None
    max_instances: Positive | None = None
    max_seats: Positive | None = None

    def check(self) -> None:
        """Require that a window has both its parts."""
        require(
            (self.tokens_per_window is None) == (self.window_s is None),
            "tokens_per_window and window_s stand together or not at all",
        )


class Budget(Part, frozen=True, kw_only=True):
    """Tokens that are counted once, under this id."""

    budget_id: BudgetId
    tokens_total: Count
    carry_over_from: BudgetId | None = None
    """The budget whose rest is added when this one first serves."""

    def check(self) -> None:
        """Require that a budget does not feed itself."""
        require(self.carry_over_from != self.budget_id, "a budget cannot carry over from itself")


class Binding(Part, frozen=True, kw_only=True):
    """The instances a license may serve on."""

    fingerprints: tuple[Fingerprint, ...]
    """Sorted, unique; empty: any."""


class LeaseTerms(Part, frozen=True, kw_only=True):
    """How the leases of a license are had."""

    url: Origin
    ttl_s: Positive
    grace_s: Count


class RevocationTerms(Part, frozen=True, kw_only=True):
    """What a license asks of the revocation bundle."""

    require_current_bundle: bool
    min_version: Count


class License(Document, frozen=True, kw_only=True):
    """A `license.v1` payload. Times are Unix seconds."""

    PAYLOAD_TYPE: ClassVar[str] = LICENSE_TYPE
    TYP: ClassVar[str] = "license.v1"

    product: Token
    license_id: LicenseId
    deployment_id: DeploymentId
    revision: Positive
    supersedes: LicenseId | None = None
    customer_id: AccountId
    customer_name: Name | None = None
    sku: Token
    mode: Literal["offline", "lease"]
    not_before_at: UnixTime
    expires_at: UnixTime
    grace_s: Count | None = None
    """Cap on the router's validation grace in seconds; None: no cap."""
    features: tuple[Token, ...]
    limits: Limits
    budget: Budget | None = None
    binding: Binding
    support_tier: Token | None = None
    lease: LeaseTerms | None = None
    revocation: RevocationTerms
    min_keyset_version: Count

    def check(self) -> None:
        """Check the rules between fields."""
        require(self.not_before_at < self.expires_at, "expires_at must be after not_before_at")
        require(self.supersedes != self.license_id, "a license cannot supersede itself")
        require_name(self.customer_name, "customer_name")
        require_sorted(self.features, "features")
        require_sorted(self.binding.fingerprints, "fingerprints")
        self.limits.check()
        if self.budget is not None:
            self.budget.check()
        require(
            (self.mode == "lease") == (self.lease is not None),
            "lease terms stand exactly when the mode is lease",
        )

    @property
    def budget_period_s(self) -> int | None:
        """How many seconds must pass before leases may bring another new budget id.

        None: they may bring none. `ext` says it, so what is no positive integer permits nothing.
        """
        value = (self.ext or {}).get("budget_period_s")
        return value if type(value) is int and value > 0 else None
