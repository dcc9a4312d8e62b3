"""The HTTP surfaces: health, models, chat completions, the license's status, metrics.

Invariants: a request is answered from the decision that holds when it comes, without I/O for it.
Every refusal comes before the upstream is called. Errors are `{"error": {"code", "message",
"request_id"}}`; no answer, row or log line holds a payload, signature, key, token or message.
Bearer tokens are compared by their SHA-256 in constant time; passwords are verified off the loop.
The caller's credentials never reach the upstream.

Source: "Surfaces" of the router's design; "Admin visibility" of the vendor's reference.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
from aiohttp import web
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from licensing.names import ROUTER_CODES
from router.clock import dated, instant
from router.config import AdminConfig, Caller, Config
from router.documents.decision import Decision
from router.lease.store import describe
from router.serve.guard import Guard
from router.serve.limits import (
    Admission,
    BadRequest,
    JournalBlocked,
    LimitExceeded,
    QuotaExceeded,
    Ticket,
    estimate,
)
from router.serve.metrics import CONTENT_TYPE, Metrics
from router.serve.usage import Outcome, Row

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
CONNECT_S: Final = 10
READ_S: Final = 600
REMEMBER_S: Final = 300
"""How long a verified password needs no hashing."""
_REMEMBERED: Final = 64
_REQUEST_ID: Final = web.RequestKey("request_id", str)
_HTTP_CODES: Final = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_DENIALS: Final = {"license-feature-forbidden": 403, "license-limit-exceeded": 429}


class Denied(Exception):
    """A request is refused, with what the caller is told."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        outcome: Outcome,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.outcome: Outcome = outcome
        self.headers = headers or {}


def license_denial(code: str, status: int | None = None) -> Denied:
    """Return the refusal of a license code: what it means, and nothing about this license."""
    message = ROUTER_CODES[code].meaning
    return Denied(status or _DENIALS.get(code, 503), code, message, "license-denied")


class Passwords:
    """Verifies basic auth against argon2id hashes, a few at once, off the event loop.

    What was verified is remembered for a while under a keyed hash that dies with the process.
    """

    def __init__(self, admin: AdminConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._users = dict(admin.users)
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._turns = asyncio.Semaphore(2)

    async def accept(self, header: str | None) -> bool:
        """Say whether an Authorization header names a user with the right password."""
        given = _basic(header)
        if given is None or not self._users:
            return False
        user, password = given
        seal = hmac.digest(self._key, f"{user}\0{password}".encode(), "sha256")
        if self._known.get(seal, 0.0) > self._monotonic():
            return True
        # An unknown user costs as much as a known one.
        encoded = self._users.get(user) or next(iter(self._users.values()))
        async with self._turns:
            good = await asyncio.to_thread(_verify, encoded, password)
        if not good or user not in self._users:
            return False
        self._known[seal] = self._monotonic() + REMEMBER_S
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return True


def _basic(header: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _verify(encoded: str, password: str) -> bool:
    try:
        return PasswordHasher().verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class Callers:
    """Knows callers by the SHA-256 of their token."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers

    def find(self, header: str | None) -> Caller | None:
        """Return the caller; every hash is compared, in constant time."""
        token = _bearer(header)
        if token is None:
            return None
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for caller in self._callers:
            if hmac.compare_digest(caller.token_sha256, given):
                found = caller
        return found


class Surfaces:
    """The aiohttp application of a router."""

    def __init__(
        self,
        config: Config,
        guard: Guard,
        *,
        write_row: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self._config = config
        self._guard = guard
        self._clock = guard.now
        self._write_row = write_row
        self._log = log
        self._callers = Callers(config.callers)
        self._models = {model.id: model for model in config.models}
        self._passwords = Passwords(config.admin)
        self._metrics = Metrics()
        self._admission = Admission(lambda: guard.journal, guard.now)
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY_BYTES)
        app.cleanup_ctx.append(self._client)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/admin/license/status", self.status)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def _client(self, _app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        async with aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
        ) as session:
            self._session = session
            yield

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Give every request an id and every error its form."""
        request[_REQUEST_ID] = "rq-" + secrets.token_hex(12)
        try:
            response = await handler(request)
        except Denied as denied:
            response = _error(request, denied)
        except web.HTTPException as error:
            code = _HTTP_CODES.get(error.status, "invalid-request")
            response = _error(request, Denied(error.status, code, error.reason, "invalid-request"))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the caller is told nothing of it
            self._log(f"request {request[_REQUEST_ID]} failed: {type(error).__name__}")
            message = "The router failed."
            response = _error(request, Denied(500, "internal", message, "router-failed"))
        if not response.prepared:
            response.headers["X-Request-Id"] = request[_REQUEST_ID]
            response.headers["Cache-Control"] = "no-store"
            response.headers["Server"] = "genai-smart-router"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    # Health

    async def healthz(self, _request: web.Request) -> web.Response:
        """Say that the process is up."""
        return web.json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say whether the license permits serving; of the license, the code alone."""
        decision = self._guard.decision
        if decision.serving:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not-ready", "code": decision.reason}, status=503)

    # Callers

    async def models(self, request: web.Request) -> web.StreamResponse:
        """List the operator's models."""
        async with self._metered(request) as (row, decision):
            self._admitted(request, row, decision)
            row.outcome, row.status = "ok", 200
            listed = [
                {"id": model.id, "object": "model", "created": 0, "owned_by": model.group}
                for model in self._config.models
            ]
            return web.json_response({"object": "list", "data": listed})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Forward a chat request, metered."""
        async with self._metered(request) as (row, decision):
            caller = self._admitted(request, row, decision)
            body = await self._body(request)
            self._route(body, row, decision)
            if not self._config.server.upstream:
                _deny(502, "upstream-missing", "No upstream is configured.", "routing-failed")
            ticket = await self._promise(decision, caller, body, row)
            try:
                return await self._forward(request, body, ticket, row)
            finally:
                # Whatever happened: what is still open counts whole.
                await asyncio.shield(ticket.settle(None))

    @asynccontextmanager
    async def _metered(self, request: web.Request) -> AsyncIterator[tuple[Row, Decision]]:
        """Write one row for the request, whatever comes of it."""
        begun = time.monotonic()
        row = Row(request[_REQUEST_ID], request.path, self._clock())
        decision = self._guard.decision
        try:
            yield row, decision
        except Denied as denied:
            row.outcome, row.code, row.status = denied.outcome, denied.code, denied.status
            raise
        except web.HTTPException as error:
            row.outcome, row.status = "invalid-request", error.status
            raise
        except (ConnectionError, asyncio.CancelledError):
            row.outcome, row.status = "client-gone", 499
            raise
        finally:
            row.duration_ms = int((time.monotonic() - begun) * 1000)
            self._metrics.count(row.outcome, row.code)
            self._write_row(row.to_json(decision))

    def _admitted(self, request: web.Request, row: Row, decision: Decision) -> Caller:
        caller = self._callers.find(request.headers.get("Authorization"))
        if caller is None:
            raise Denied(
                401,
                "unauthorized",
                "Bring a bearer token this router knows.",
                "auth-denied",
                {"WWW-Authenticate": 'Bearer realm="router"'},
            )
        row.caller = caller.name
        if not decision.serving:
            # Whatever the code, all of the installation is blocked.
            raise license_denial(decision.reason or "license-invalid", 503)
        return caller

    async def _body(self, request: web.Request) -> dict[str, Any]:
        data = await request.read()
        try:
            body = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            _deny(400, "invalid-request", "The body is not JSON.", "invalid-request")
        if not isinstance(body, dict):
            _deny(400, "invalid-request", "The body is not a JSON object.", "invalid-request")
        return body

    def _route(self, body: dict[str, Any], row: Row, decision: Decision) -> None:
        name = body.get("model")
        model = self._models.get(name) if isinstance(name, str) else None
        if model is None:
            _deny(404, "model-unknown", "GET /v1/models lists the models.", "routing-failed")
        row.model, row.group = model.id, model.group
        if not decision.allows(model.features):
            raise license_denial("license-feature-forbidden")

    async def _promise(
        self, decision: Decision, caller: Caller, body: dict[str, Any], row: Row
    ) -> Ticket:
        try:
            tokens = estimate(body)
            row.reserved_tokens = tokens
            return await self._admission.admit(decision, caller, row.request_id, tokens)
        except BadRequest as error:
            raise Denied(400, error.code, error.message, "invalid-request") from None
        except QuotaExceeded as error:
            message = "The caller's own quota is used up."
            raise Denied(429, error.code, message, "quota-denied") from None
        except LimitExceeded as error:
            denial = license_denial("license-limit-exceeded")
            if error.retry_after_s is not None:
                denial.headers["Retry-After"] = str(error.retry_after_s)
            raise denial from None
        except JournalBlocked:
            self._log("a request was refused: the license state cannot be written")
            message = "The router cannot write its state; nothing was spent."
            raise Denied(503, "state-not-durable", message, "router-failed") from None

    async def _forward(
        self, request: web.Request, body: dict[str, Any], ticket: Ticket, row: Row
    ) -> web.StreamResponse:
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
                f"{self._config.server.upstream}/chat/completions",
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
            _deny(502, "upstream-failed", "The upstream does not answer.", "upstream-failed")
        except (aiohttp.ClientError, TimeoutError, OSError):
            _deny(502, "upstream-failed", "The upstream does not answer.", "upstream-failed")
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
                    _deny(502, "upstream-failed", "The answer is too long.", "upstream-failed")
        except (aiohttp.ClientError, TimeoutError, OSError):
            _deny(502, "upstream-failed", "The upstream's answer broke off.", "upstream-failed")
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
            # Where the upstream sends us, or what it thinks of the router, is not for callers.
            _deny(502, "upstream-failed", "The upstream refused the router.", "upstream-failed")
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

    # Operators

    async def status(self, request: web.Request) -> web.Response:
        """Tell an administrator the safe facts."""
        if not await self._passwords.accept(request.headers.get("Authorization")):
            raise Denied(
                401,
                "unauthorized",
                "Bring an administrator's name and password.",
                "auth-denied",
                {"WWW-Authenticate": 'Basic realm="router", charset="UTF-8"'},
            )
        decision = self._guard.decision
        now = self._clock()
        facts: dict[str, Any] = {
            "serving": decision.serving,
            "status": decision.status,
            "reason": decision.reason,
            "cause": decision.cause,
            "grace_active": decision.grace is not None,
            "license": dated(decision.facts) or None,
            "grace": None,
            "lease": None,
            "usage": self._usage(decision, now),
            "running_requests": self._admission.running,
            "warnings": list(decision.warnings),
            "checked_at": instant(decision.decided_at),
            "next_check_at": instant(self._guard.next_check_at),
            "request_id": request[_REQUEST_ID],
        }
        if decision.reason is not None:
            facts["next_step"] = ROUTER_CODES[decision.reason].next_step
        if decision.grace is not None:
            grace = decision.grace
            facts["grace"] = dated(
                {"began_at": grace.began_at, "ends_at": grace.ends_at, "reason": grace.reason}
            )
        facts["lease"] = self._lease(decision, now)
        journal = self._guard.journal
        if journal is not None and journal.blocked is not None:
            facts["warnings"].append("the license state cannot be written: nothing can be spent")
        return web.json_response(facts)

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics for whoever brings the metrics token."""
        path = self._config.admin.metrics_token_file
        if path is None:
            raise web.HTTPNotFound
        wanted = await asyncio.to_thread(_read_token, path)
        given = _bearer(request.headers.get("Authorization"))
        if not wanted or given is None or not hmac.compare_digest(wanted, given.encode()):
            raise Denied(
                401,
                "unauthorized",
                "Bring the metrics token.",
                "auth-denied",
                {"WWW-Authenticate": 'Bearer realm="metrics"'},
            )
        decision = self._guard.decision
        now = self._clock()
        usage = self._usage(decision, now) or {}
        page = self._metrics.render(
            decision, usage, self._admission.running, now, self._guard.lease_state
        )
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _lease(self, decision: Decision, now: int) -> dict[str, Any] | None:
        """Return how the lease and its renewal stand; None offline."""
        state = self._guard.lease_state
        if decision.facts.get("mode") != "lease":
            return None
        return dated({"status": "unreadable"} if state is None else describe(state, now))

    def _usage(self, decision: Decision, now: int) -> dict[str, int] | None:
        """Return what is used of budget and window, in tokens."""
        state, terms = self._guard.state, decision.terms
        if state is None or terms is None or not terms.limited:
            return None
        found: dict[str, int] = {}
        if terms.budget is not None:
            tally = state.budgets.tallies.get(terms.budget.budget_id)
            if tally is not None:
                found |= {
                    "budget_tokens_total": tally.total,
                    "budget_tokens_used": tally.used,
                    "budget_tokens_reserved": tally.reserved,
                    "budget_tokens_left": tally.left,
                }
        if terms.tokens_per_window is not None and terms.window_s is not None:
            window = state.budgets.windows.get(terms.deployment_id)
            used = 0 if window is None else window.used(now)
            found |= {
                "window_tokens_total": terms.tokens_per_window,
                "window_tokens_used": used,
                "window_tokens_left": max(0, terms.tokens_per_window - used),
            }
        return found


class _Events:
    """Cuts a stream into whole server-sent events, each with the empty line at its end."""

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
    """Return the usage an event tells, and whether it tells nothing else."""
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


def _deny(status: int, code: str, message: str, outcome: Outcome) -> NoReturn:
    raise Denied(status, code, message, outcome)


def _error(request: web.Request, denied: Denied) -> web.Response:
    body = {
        "error": {
            "code": denied.code,
            "message": denied.message,
            "request_id": request[_REQUEST_ID],
        }
    }
    return web.json_response(body, status=denied.status, headers=denied.headers)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _read_token(path: Path) -> bytes:
    """Return the first line of a token file; empty where there is none."""
    try:
        return path.read_bytes()[:4096].split(b"\n")[0].strip()
    except OSError:
        return b""
