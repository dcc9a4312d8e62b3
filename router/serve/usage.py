"""One JSON line for each request of a caller.

Invariants: a row contains ids, counts and safe scalars, never a message, an answer, a token or a
key. It distinguishes denials by the license from denials by authentication, quota and routing, and
from failures of the upstream.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from router.clock import instant
from router.documents.decision import Decision

Outcome = Literal[
    "ok",
    "license-denied",
    "auth-denied",
    "quota-denied",
    "routing-failed",
    "upstream-failed",
    "invalid-request",
    "client-gone",
    "router-failed",
]


@dataclass
class Row:
    """What becomes known about a request while it is served."""

    request_id: str
    path: str
    at: int
    caller: str | None = None
    model: str | None = None
    """Only the name of a configured model: callers may send anything."""
    group: str | None = None
    stream: bool = False
    reserved_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    outcome: Outcome = "router-failed"
    code: str | None = None
    status: int = 500
    duration_ms: int = 0

    def take_usage(self, usage: object) -> bool:
        """Read the upstream's `usage`; return whether it says how many tokens were used."""
        if not isinstance(usage, dict):
            return False
        prompt, completion = (
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
        )
        total = _count(usage.get("total_tokens"))
        if total is None and prompt is not None and completion is not None:
            total = prompt + completion
        if total is None:
            return False
        # The larger number counts: an upstream that adds up wrongly must not refill a budget.
        total = max(total, (prompt or 0) + (completion or 0))
        self.prompt_tokens, self.completion_tokens, self.total_tokens = prompt, completion, total
        return True

    def to_json(self, decision: Decision) -> str:
        """Return the line."""
        facts: dict[str, Any] = {
            "at": instant(self.at),
            "request_id": self.request_id,
            "path": self.path,
            "caller": self.caller,
            "model": self.model,
            "group": self.group,
            "stream": self.stream,
            "outcome": self.outcome,
            "code": self.code,
            "status": self.status,
            "reserved_tokens": self.reserved_tokens,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "duration_ms": self.duration_ms,
            "license_status": decision.status,
            "license_reason": decision.reason,
            "license_id": decision.facts.get("license_id"),
            "customer_id": decision.facts.get("customer_id"),
            "sku": decision.facts.get("sku"),
            "key_id": decision.facts.get("key_id"),
            "grace_active": decision.grace is not None,
        }
        return json.dumps({name: value for name, value in facts.items() if value is not None})


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        return None
    return value


Write = Callable[[str], None]
"""Writes one line."""
