"""What an act is made of, so that the machinery can preview, record, approve and run any kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from portal.services.context import Context


class Params(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is said of an act beside its subject and its reason."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """An act that somebody wants done."""

    subject_id: str
    """The license, entitlement or key it is done to."""
    params: Params = field(default_factory=Params)
    reason: str
    by: str | None
    """The person who asks; None for commerce, the worker and the policy."""
    act_id: str = ""
    """The act's own id once it is recorded."""


@dataclass(frozen=True)
class Outcome:
    """What came of an act that ran."""

    status: str
    """`issuing`, `issued`, `suspended`, `reinstated`, `revoked` and the like."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Ids and numbers for the command and the pages."""


@dataclass(frozen=True)
class Scene:
    """What an act is done in: whose it is, and all that its preview depends on."""

    account_id: str | None
    deployment_id: str | None
    facts: Any
    """JSON values that the fingerprint covers."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of act.

    `run` acts; it flushes and is run for previews as well, in a savepoint that is rolled back.
    """

    name: str
    params: type[Params]
    permission: str
    """What staff need to do it, and to approve it."""
    scene: Callable[[Context, Ask], Scene]
    """Holds what the act changes until the unit ends.

    Raises:
        NotFound: there is no such subject.
    """
    run: Callable[[Context, Ask], Outcome]
    shows: Callable[[Context, Ask, Callable[[], Outcome]], dict[str, Any]]
    """Runs the act and returns, as JSON values, what changed by it."""
    needs_two: Callable[[Context, Ask], bool] = lambda _context, _ask: False
    """Whether a second person has to approve it."""
    needs_proof: bool = True
    """Whether the signer has to prove who did it: not for what only takes away, and not for what
    the command alone carries out."""
    waits: Callable[[Context, Ask], None] = lambda _context, _ask: None
    """What its first person's word does already, while it waits for a second."""
    dropped: Callable[[Context, Ask], None] = lambda _context, _ask: None
    """Takes that back, when it is declined or lapses."""
