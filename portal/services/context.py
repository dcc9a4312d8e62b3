"""What every use case gets: one transaction, one reading of the clock, who acts, and the ports.

Invariants: a `Context` lives for one unit of work. `at` is read once, when the unit opens, so that
everything an act writes has the same instant. Services flush; whoever opened the unit commits.

No key is derived, no network called and no attempt counted inside a writing unit, and the worker
signs nothing in one. On SQLite that would hold the only write lock, and a count would be lost with
a rollback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy.orm import Session

from portal.db.session import Database
from portal.domain.causes import Approvals
from portal.domain.ports import (
    Clock,
    Custody,
    PasswordHasher,
    Randomness,
    RateLimiter,
    SecretBox,
    Signers,
)

ActorKind = Literal["person", "staff", "system", "command", "instance", "anonymous"]


@dataclass(frozen=True)
class Actor:
    """Who acts, from where, and in which HTTP request."""

    kind: ActorKind
    id: str | None = None
    address: str | None = None
    http_request_id: str | None = None


SYSTEM: Final = Actor("system")


@dataclass(frozen=True)
class Ports:
    """The outside world, as far as use cases need it."""

    clock: Clock
    randomness: Randomness
    passwords: PasswordHasher
    secrets: SecretBox
    signers: Signers
    custody: Custody
    limiter: RateLimiter


@dataclass(frozen=True)
class Policy:
    """The vendor's settings that use cases follow."""

    origin: str
    """The public origin; the `aud` of what instances sign."""
    former_origins: frozenset[str] = frozenset()
    issuer: str = "metrum.ai"
    terms_of_use_version: str = "2026-11-01"
    evaluation_interval: timedelta = timedelta(days=180)
    start_window: timedelta = timedelta(days=30)
    answer_within: timedelta = timedelta(hours=24)
    """How soon staff promise to answer a request."""
    overlap: timedelta = timedelta(days=30)
    """How long a license stays valid after it was replaced voluntarily."""
    approvals: Approvals = Approvals.SESSION
    """What the signer takes as the approval of a staff person."""
    evaluations_a_day: int = 50
    """Evaluations the policy may grant in 24 hours, over all accounts."""
    denied_domains: frozenset[str] = field(default_factory=frozenset)
    staff_address: str = ""
    """An address that is told of new requests, besides those of staff; empty for none."""


@dataclass(frozen=True)
class Context:
    """One unit of work."""

    session: Session
    at: datetime
    actor: Actor
    ports: Ports
    policy: Policy


class Transactions:
    """Opens units of work for the web, the worker and the command."""

    def __init__(self, database: Database, ports: Ports, policy: Policy) -> None:
        self.database = database
        self.ports = ports
        self.policy = policy

    @contextmanager
    def reading(self, actor: Actor) -> Iterator[Context]:
        """Open a unit that can only read."""
        with self.database.reading() as session:
            yield Context(session, self.ports.clock.now(), actor, self.ports, self.policy)

    @contextmanager
    def statements(self, actor: Actor) -> Iterator[Context]:
        """Open a unit whose one writing statement is atomic by itself."""
        with self.database.statements() as session:
            yield Context(session, self.ports.clock.now(), actor, self.ports, self.policy)

    @contextmanager
    def writing(self, actor: Actor) -> Iterator[Context]:
        """Open a unit that commits when its block returns and rolls back when it raises."""
        with self.database.writing() as session:
            yield Context(session, self.ports.clock.now(), actor, self.ports, self.policy)
