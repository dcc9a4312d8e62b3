"""Forwarding a request to the upstream, and counting what it used.

Invariants: a ticket is settled with what the upstream reports; if it reports nothing, the
reservation counts. The caller's credentials never reach the upstream, nor its refusals the caller.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from aiohttp import web

from router.serve.denials import deny
from router.serve.limits import Ticket
from router.serve.usage import Row

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
CONNECT_S: Final = 10
READ_S: Final = 600


class Upstream:
    """An OpenAI-compatible server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def connected(self, _app: web.Application) -> AsyncIterator[None]:
        """Hold connections while the application runs."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        async with aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
        ) as session:
            self._session = session
            yield

    async def forward(
        self, request: web.Request, body: dict[str, Any], ticket: Ticket, row: Row
    ) -> web.StreamResponse:
        """Forward a request and pass the answer back, streamed if the caller asked for that.

        Raises:
            Denied: the upstream gave no answer that callers may see.
        """
        stream = body.get("stream") is True
        row.stream = stream
        asked_usage = True
        if stream:
            options = body.get("stream_options")
            options = dict(options) if isinstance(options, dict) else {}
            asked_usage = options.get("include_usage") is True
            body = {**body, "stream_options": {**options, "include_usage": True}}
        assert self._session is not None
        try:
            answer = await self._session.post(
                f"{self._url}/chat/completions",
                data=json.dumps(body).encode(),
                headers={
                    "Content-Type": "application/json",
                    "Accept": "text/event-stream" if stream else "application/json",
                    "Accept-Encoding": "identity",
                    "X-Request-Id": row.request_id,
                },
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError:
            # Nothing was sent.
            await ticket.release()
            deny(502, "upstream-failed", "The upstream does not answer.", "upstream-failed")
        except (aiohttp.ClientError, TimeoutError, OSError):
            deny(502, "upstream-failed", "The upstream does not answer.", "upstream-failed")
        try:
            if stream and answer.status == 200 and answer.content_type == "text/event-stream":
                return await self._pass_stream(request, answer, ticket, row, asked_usage)
            return await self._pass_whole(answer, ticket, row)
        finally:
            answer.close()

    async def _pass_whole(
        self, answer: aiohttp.ClientResponse, ticket: Ticket, row: Row
    ) -> web.Response:
        data = bytearray()
        try:
            async for part in answer.content.iter_any():
                data += part
                if len(data) > MAX_ANSWER_BYTES:
                    deny(502, "upstream-failed", "The answer is too long.", "upstream-failed")
        except (aiohttp.ClientError, TimeoutError, OSError):
            deny(502, "upstream-failed", "The upstream's answer broke off.", "upstream-failed")
        usage: object = None
        try:
            value = json.loads(data)
            usage = value.get("usage") if isinstance(value, dict) else None
        except (ValueError, RecursionError):
            pass
        failed = answer.status >= 300
        if row.take_usage(usage):
            await ticket.settle(row.total_tokens)
        elif failed:
            # It refused: nothing was generated.
            await ticket.settle(0)
        row.status = answer.status
        row.outcome = "upstream-failed" if failed else "ok"
        if 300 <= answer.status < 400 or answer.status in (401, 403):
            # Callers must not see the upstream's redirects and refusals.
            deny(502, "upstream-failed", "The upstream refused the router.", "upstream-failed")
        kept = (
            {"Retry-After": answer.headers["Retry-After"]}
            if ("Retry-After" in answer.headers)
            else {}
        )
        kept["Content-Type"] = answer.headers.get("Content-Type", "application/octet-stream")
        return web.Response(status=answer.status, body=bytes(data), headers=kept)

    async def _pass_stream(
        self,
        request: web.Request,
        answer: aiohttp.ClientResponse,
        ticket: Ticket,
        row: Row,
        asked_usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "Server": "genai-smart-router",
                "X-Request-Id": row.request_id,
                "X-Content-Type-Options": "nosniff",
            }
        )
        row.status = 200
        await response.prepare(request)
        events = _Events()
        known = False
        try:
            async for part in answer.content.iter_any():
                for event in events.feed(part):
                    usage, alone = _usage_of(event)
                    known = row.take_usage(usage) or known
                    if asked_usage or not alone:
                        await response.write(event)
            await response.write(events.rest())
            await response.write_eof()
            row.outcome = "ok"
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, TimeoutError):
            row.outcome, row.code = "upstream-failed", "upstream-failed"
            # The status is sent: a broken connection is what tells the caller.
            if request.transport is not None:
                request.transport.abort()
        finally:
            await asyncio.shield(ticket.settle(row.total_tokens if known else None))
        return response


class _Events:
    """Splits a stream into whole server-sent events, each with its final empty line."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, part: bytes) -> list[bytes]:
        self._held += part
        found: list[bytes] = []
        while True:
            ends = [
                place + len(end)
                for end in (b"\n\n", b"\r\n\r\n")
                if (place := self._held.find(end)) >= 0
            ]
            if not ends:
                break
            end = min(ends)
            found.append(bytes(self._held[:end]))
            del self._held[:end]
        if len(self._held) > MAX_EVENT_BYTES:
            found.append(self.rest())
        return found

    def rest(self) -> bytes:
        rest = bytes(self._held)
        self._held.clear()
        return rest


def _usage_of(event: bytes) -> tuple[object, bool]:
    """Return the usage that an event reports, and whether it reports nothing else."""
    if b'"usage"' not in event:
        return None, False
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        value = json.loads(b"\n".join(lines))
    except (ValueError, RecursionError):
        return None, False
    if not isinstance(value, dict) or not isinstance(value.get("usage"), dict):
        return None, False
    return value["usage"], not value.get("choices")
