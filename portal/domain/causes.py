"""Causes: why a license may be signed, as the signer wrote it down and sealed it.

A cause is proved once, when an entitlement starts or changes. The signer then writes cause, grant
key and terms as canonical JSON and signs that with its `seal` key. Everything later is computed
from these statements; no row of the database is believed for what a statement says.

Invariants: a statement names what it is about, so it cannot be moved to another entitlement, hold
or license. Of an entitlement's statements the one of the highest number counts, wherever its row
stands. Times are integer Unix seconds.

Source: "Custody".
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, Self

import msgspec
from msgspec.structs import asdict

from licensing.document import (
    AccountId,
    BudgetId,
    Count,
    DeploymentId,
    LicenseId,
    Part,
    Positive,
    Sha256,
    UnixTime,
)
from licensing.encoding import canonical, parse_canonical
from licensing.envelope import pae
from licensing.errors import MalformedPayload
from portal.domain.catalog import Template
from portal.domain.entitlements import EndCause, Grant
from portal.domain.terms import Terms

RULES: Final = 1
"""Which computation made a payload. Raise it whenever the same statements give another payload: the
checker computes anew only what these rules made."""
SEAL_TYPE: Final = "application/vnd.metrum.seal.v1+json"
DAY: Final = timedelta(days=1)

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Approvals(StrEnum):
    """What the signer takes as the approval of a staff person."""

    SESSION = "session"
    """A signed-in browser that gave its second factor and was checked again a short while ago."""
    COMMAND = "command"
    """The `portal` command's own seal, and nothing else."""


APPROVALS_REST_ON: Final = {
    Approvals.SESSION: (
        "session: what staff approve, and acts of two, rest on the web process and the database"
    ),
    Approvals.COMMAND: (
        "command: what staff approve, and acts of two, rest on whoever runs the command"
    ),
}


class CauseKind(StrEnum):
    """What was proved."""

    EVALUATION = "evaluation"
    """The signer decided by the policy."""
    STAFF = "staff"
    """Staff approved in signed-in browsers."""
    COMMAND = "command"
    """The `portal` command did it, where the keys are."""
    CUSTOMER = "customer"
    """The customer bound the license to another fingerprint, which grants nothing more."""
    ADOPTED = "adopted"
    """An operator reviewed what is older than custody."""


class Cause(Part, frozen=True, kw_only=True):
    """What was proved, and for whom the record names it."""

    kind: CauseKind
    by: tuple[Id, ...] | None = None
    """The staff people it rests on; None for the policy's own decision."""
    domain_sha256: Sha256 | None = None
    """Of the registrable domain an evaluation was granted to."""


class Statement(Part, frozen=True, kw_only=True):
    """What the signer vouches for."""

    TYP: ClassVar[str]

    sealed_at: UnixTime

    @property
    def subject_id(self) -> str:
        """What the statement is about, as its audit row names it."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the statement as canonical JSON.

        Raises:
            MalformedPayload: a value that canonical JSON cannot hold.
        """
        return canonical({"typ": self.TYP, **msgspec.to_builtins(self)})

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a statement of this kind.

        Raises:
            MalformedPayload: it is not canonical, or another kind of statement.
        """
        value = parse_canonical(body)
        if value.pop("typ", None) != cls.TYP:
            raise MalformedPayload(f"the statement is no {cls.TYP}")
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise MalformedPayload(str(error)) from error


class EntitlementSeal(Statement, frozen=True, kw_only=True):
    """Vouches for an entitlement: for whom, which terms, since and until when, and why."""

    TYP: ClassVar[str] = "entitlement"

    account_id: AccountId
    deployment_id: DeploymentId
    entitlement_id: Id
    number: Positive
    """Counts the statements about this entitlement from 1."""
    cause: Cause
    grant_key: Id
    """What it was granted for, such as `request:req_…`; no two entitlements share one."""
    terms: Terms
    budget_id: BudgetId | None = None
    renews: Id | None = None
    """The base that this one goes on from."""
    starts_at: UnixTime | None = None
    ends_at: UnixTime | None = None
    licenses: tuple[Sha256, ...] | None = None
    """Payload hashes of licenses older than custody that an operator vouched for with it."""

    @property
    def subject_id(self) -> str:
        """The entitlement."""
        return self.entitlement_id


class SealedGrant(Part, frozen=True, kw_only=True):
    """A started entitlement as a license was computed from it.

    Its statement says what it grants; beside it stands what restricts that, which needs no proof.
    """

    cause: Sha256
    """Of the statement."""
    ended_at: UnixTime | None = None
    end_cause: EndCause | None = None
    held_since: UnixTime | None = None
    taken_tokens: Count = 0
    taken_at: UnixTime | None = None

    def grant(self, statement: EntitlementSeal) -> Grant:
        """Return both together, for the rules.

        Raises:
            ValueError: it has not started.
        """
        if statement.starts_at is None:
            raise ValueError(f"{statement.entitlement_id} has not started")
        return Grant(
            id=statement.entitlement_id,
            terms=statement.terms,
            budget_id=statement.budget_id,
            starts_at=datetime.fromtimestamp(statement.starts_at, UTC),
            ends_at=_instant(statement.ends_at),
            renews=statement.renews,
            ended_at=_instant(self.ended_at),
            end_cause=self.end_cause,
            held_since=_instant(self.held_since),
            taken_tokens=self.taken_tokens,
            taken_at=_instant(self.taken_at),
        )


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class LiftSeal(Statement, frozen=True, kw_only=True):
    """Vouches for the lifting of one hold."""

    TYP: ClassVar[str] = "lift"

    account_id: AccountId
    deployment_id: DeploymentId
    hold_id: Id
    entitlement_id: Id
    cause: Cause

    @property
    def subject_id(self) -> str:
        """The hold."""
        return self.hold_id


class LicenseSeal(Statement, frozen=True, kw_only=True):
    """Vouches for a license's payload, before it is signed and when it is released."""

    TYP: ClassVar[str] = "license"

    account_id: AccountId
    deployment_id: DeploymentId
    license_id: LicenseId
    entitlement_id: Id
    stage: Literal["intended", "issued"]
    payload_sha256: Sha256
    revision: Positive
    rules: Positive
    computed_at: UnixTime
    grants: tuple[SealedGrant, ...]
    """What the payload was computed from, in the order of their making."""
    key_ids: tuple[Sha256, ...]
    """The keys that sign it, in the order of the file."""
    file_sha256: Sha256 | None = None
    """Of the signed file; None before it is signed."""

    @property
    def subject_id(self) -> str:
        """The license."""
        return self.license_id


class ReviewSeal(Statement, frozen=True, kw_only=True):
    """Vouches that an operator looked into what was refused until `sealed_at`."""

    TYP: ClassVar[str] = "review"

    by: Id

    @property
    def subject_id(self) -> str:
        """The alarms, all together."""
        return "alarms"


def signing_input(body: bytes) -> bytes:
    """Return what the `seal` key signs for a statement."""
    return pae(SEAL_TYPE, body)


def beyond_template(terms: Terms, template: Template) -> tuple[str, ...]:
    """Return the terms that grant more than the template does; empty: the template's or less."""
    beyond = []
    if terms.mode not in template.modes:
        beyond.append("mode")
    if _is_more(terms.term_s, template.term_s):
        beyond.append("term_s")
    if _is_more(terms.tokens_total, template.tokens_total):
        beyond.append("tokens_total")
    if not set(terms.features) <= set(template.features):
        beyond.append("features")
    most = asdict(template.limits)
    beyond += [
        name
        for name, value in asdict(terms.limits).items()
        if name != "window_s" and _is_more(value, most[name])
    ]
    if terms.limits.window_s != template.limits.window_s:
        beyond.append("window_s")
    if terms.support_tier is not None:
        beyond.append("support_tier")
    return tuple(beyond)


def _is_more(value: int | None, most: int | None) -> bool:
    """Whether a value exceeds its cap; a missing value is no limit, hence more than any."""
    return most is not None and (value is None or value > most)
