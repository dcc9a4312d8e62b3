"""What can go wrong between a router and its portal.

A fault applies to one request; faults are taken from the front of the queue.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devtools.simulator.portal import Answer, Simulator


@dataclass(frozen=True)
class Ask:
    """The way of one request to the portal."""

    portal: Simulator
    method: str
    path: str
    body: bytes
    content_type: str

    def __call__(self) -> Answer:
        """Pass the request on."""
        return self.portal.handle(self.method, self.path, self.body, self.content_type)


Fault = Callable[[Ask], Answer | None]
"""Takes the call to the portal; returns the answer that arrives, or None if none does."""

_PROBLEM: Final = "application/problem+json"


def _problem(status: int, code: str, **headers: str) -> Fault:
    text = (
        f'{{"status": {status}, "code": "{code}", "detail": "Simulated.", "title": "{code}", '
        '"next_action": "Nothing."}'
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _ask: Answer(status, text.encode(), _PROBLEM, named)


def _lose_request(_ask: Ask) -> Answer | None:
    return None


def _lose_answer(ask: Ask) -> Answer | None:
    ask()
    return None


def _cut_answer(ask: Ask) -> Answer | None:
    whole = ask()
    return Answer(whole.status, whole.body[: len(whole.body) // 2], whole.content_type)


def _wide_lease(ask: Ask) -> Answer | None:
    """Somebody has the portal's lease key, and signs what goes beyond the license."""
    whole = ask()
    if ask.path != "/v1/leases" or whole.status != 200:
        return whole
    return Answer(whole.status, ask.portal.widened(whole.body), whole.content_type)


def _page(status: int) -> Fault:
    return lambda _ask: Answer(status, b"<html>Please sign in to the network</html>", "text/html")


FAULTS: Final[dict[str, Fault]] = {
    "lost-request": _lose_request,
    "lost-answer": _lose_answer,
    "cut-answer": _cut_answer,
    "unavailable": _problem(503, "unavailable", Retry_After="120"),
    "limited": _problem(429, "rate-limited", Retry_After="61"),
    "conflict": _problem(409, "clone-suspected"),
    "page": _page(200),
    "forbidden-page": _page(403),
    "redirect": lambda _ask: Answer(
        302, b"", "text/html", {"Location": "https://elsewhere.example"}
    ),
    "forged-refusal": _problem(403, "license-mismatch"),
    "wide-lease": _wide_lease,
}


@dataclass
class Faults:
    """The portal behind a network that misbehaves on cue."""

    simulator: Simulator
    queue: deque[str] = field(default_factory=deque)
    """Names of `FAULTS`."""
    passed: int = 0
    """Requests so far."""

    def handle(
        self, method: str, path: str, body: bytes, content_type: str = "application/json"
    ) -> Answer | None:
        """Answer one request; None if nothing comes back."""
        self.passed += 1
        ask = Ask(self.simulator, method, path, body, content_type)
        return FAULTS[self.queue.popleft()](ask) if self.queue else ask()
