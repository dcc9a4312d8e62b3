"""What a request may spend: the license's budget and window, its concurrency, the caller's quota.

    ticket = await admission.admit(decision, caller, request_id, tokens)
    await ticket.settle(used)        # None: unknown, the reservation counts
    await ticket.release()           # the upstream was never reached

Invariants: everything is reserved before the upstream is called, or nothing is. A ticket is settled
or released once; its place among the concurrent ones is free after that.

A caller's quota is the operator's own and apart from the license. It is counted by the same
journal, under ids made from the caller's name, so that it is as durable and outlives a new token.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from licensing.encoding import crockford
from licensing.license import Budget
from router.config import Caller
from router.documents.decision import Decision
from router.errors import RouterError
from router.state.budgets import LimitExceeded, Terms
from router.state.journal import Journal, JournalBlocked
from router.state.store import State

DEFAULT_MAX_TOKENS: Final = 4096
"""What is reserved for an answer whose length the request does not bound."""
_BYTES_PER_TOKEN: Final = 3
_MESSAGE_TOKENS: Final = 8
_PART_TOKENS: Final = 1024
"""Counted for an image or another part that is not text."""
_MAX_TOKENS: Final = 2**40


class QuotaExceeded(RouterError):
    """The caller's own quota has less left than the request may need."""

    code = "quota-exceeded"


class BadRequest(RouterError):
    """The request's body cannot be metered."""

    code = "invalid-request"


class TooMany(LimitExceeded):
    """The license permits no more requests at the same time."""

    def __init__(self, limit: int) -> None:
        super().__init__("concurrency", left=0, asked=1, retry_after_s=1)
        self.message = f"{limit} requests are running, as many as the license permits"


def estimate(body: dict[str, Any]) -> int:
    """Return the tokens a chat request may use: its prompt, generously, and its `max_tokens`.

    Raises:
        BadRequest: messages, `max_tokens` or `n` are malformed.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list with at least one message")
    prompt = sum(_message_tokens(message) for message in messages)
    if "tools" in body:
        prompt += _text_tokens(json.dumps(body["tools"]))
    bounds = [
        _whole(body, name, 0)
        for name in ("max_completion_tokens", "max_tokens")
        if body.get(name) is not None
    ]
    answers = _whole(body, "n", 1) if body.get("n") is not None else 1
    return prompt + max(bounds, default=DEFAULT_MAX_TOKENS) * answers


def _whole(body: dict[str, Any], name: str, least: int) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_TOKENS:
        raise BadRequest(f"{name} must be a whole number from {least} on")
    return value


def _message_tokens(message: object) -> int:
    if not isinstance(message, dict):
        raise BadRequest("each message must be an object")
    content = message.get("content")
    rest = {name: value for name, value in message.items() if name != "content"}
    tokens = _MESSAGE_TOKENS + _text_tokens(json.dumps(rest))
    if isinstance(content, str):
        return tokens + _text_tokens(content)
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) else None
        tokens += _text_tokens(text) if isinstance(text, str) else _PART_TOKENS
    return tokens


def _text_tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def quota_terms(caller: Caller) -> Terms | None:
    """Return the terms of a caller's quota; None if it has none."""
    if caller.tokens_total is None:
        return None
    digits = crockford(hashlib.sha256(b"caller\n" + caller.name.encode()).digest()[:16])
    return Terms(
        f"dep_{digits}", Budget(budget_id=f"bud_{digits}", tokens_total=caller.tokens_total)
    )


class Ticket:
    """What was reserved for one request."""

    def __init__(self, admission: "Admission", journal: Journal | None, ids: list[str]) -> None:
        self._admission = admission
        self._journal = journal
        self._ids = ids
        self._open = True

    async def settle(self, tokens: int | None) -> None:
        """Count what was used; None counts the reservation."""
        if self._close() and self._journal is not None:
            now = self._admission.clock()
            await asyncio.gather(*(self._journal.settle(each, tokens, now) for each in self._ids))

    async def release(self) -> None:
        """Give everything back: the upstream was never reached."""
        if self._close() and self._journal is not None:
            await asyncio.gather(*(self._journal.release(each) for each in self._ids))

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._admission.running -= 1
        return was_open


class Admission:
    """Admits requests as far as license and quota permit."""

    def __init__(self, journal: Callable[[], Journal | None], clock: Callable[[], int]) -> None:
        self._journal = journal
        self.clock = clock
        self.running = 0
        """Requests that hold a ticket."""

    async def admit(
        self, decision: Decision, caller: Caller, request_id: str, tokens: int
    ) -> Ticket:
        """Reserve tokens and a place.

        Raises:
            LimitExceeded: the license has fewer tokens left, or no place.
            QuotaExceeded: the caller has fewer tokens left.
            JournalBlocked: nothing can be written to disk.
        """
        bound = decision.limits.max_concurrency
        if bound is not None and self.running >= bound:
            raise TooMany(bound)
        self.running += 1
        try:
            return await self._promise(decision, caller, request_id, tokens)
        except BaseException:
            self.running -= 1
            raise

    async def _promise(
        self, decision: Decision, caller: Caller, request_id: str, tokens: int
    ) -> Ticket:
        journal = self._journal()
        quota = quota_terms(caller)
        if journal is None:
            return Ticket(self, None, [])
        now = self.clock()
        ids: list[str] = []
        if quota is not None:
            await self._prepare(journal, quota)
            try:
                await journal.reserve(f"{request_id}.caller", quota, tokens, now)
            except LimitExceeded as error:
                raise QuotaExceeded(
                    f"{tokens} tokens were asked for; {error.left} are left"
                ) from None
            ids.append(f"{request_id}.caller")
        if decision.terms is not None:
            try:
                await journal.reserve(request_id, decision.terms, tokens, now)
            except BaseException:
                for each in ids:
                    await asyncio.shield(journal.release(each))
                raise
            ids.append(request_id)
        return Ticket(self, journal, ids)

    async def _prepare(self, journal: Journal, quota: Terms) -> None:
        """Count under these terms from now on."""

        def serving(state: State) -> State:
            budgets = state.budgets.serving(quota)
            if budgets == state.budgets:
                return state
            return msgspec.structs.replace(state, budgets=budgets)

        if serving(journal.state) is not journal.state:
            await journal.update(serving)


__all__ = [
    "Admission",
    "BadRequest",
    "JournalBlocked",
    "LimitExceeded",
    "QuotaExceeded",
    "Ticket",
    "TooMany",
    "estimate",
    "quota_terms",
]
