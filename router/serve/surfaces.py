"""The HTTP surfaces: health, models, chat completions, the license's status, metrics.

Invariants: a request is answered from the current decision, which needs no I/O. Every refusal comes
before the upstream is called. No answer, row or log line contains a payload, signature, key, token
or message.

Source: "Surfaces" of the router's design; "Admin visibility" of the vendor's reference.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

from aiohttp import web

from router.config import Caller, Config
from router.documents.decision import Decision
from router.serve.credentials import Callers, Passwords, brings_token
from router.serve.denials import (
    REQUEST_ID,
    Denied,
    deny,
    error_answer,
    license_denial,
    unauthorized,
)
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
from router.serve.status import status_facts, used_tokens
from router.serve.upstream import Upstream
from router.serve.usage import Row

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
_HTTP_CODES: Final = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}


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
        self._upstream = Upstream(config.server.upstream)

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY_BYTES)
        app.cleanup_ctx.append(self._upstream.connected)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/admin/license/status", self.status)
        app.router.add_get("/metrics", self.metrics)
        return app

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Give every request an id, and every error the form of a refusal."""
        request[REQUEST_ID] = "rq-" + secrets.token_hex(12)
        try:
            response = await handler(request)
        except Denied as denied:
            response = error_answer(request, denied)
        except web.HTTPException as error:
            code = _HTTP_CODES.get(error.status, "invalid-request")
            response = error_answer(
                request, Denied(error.status, code, error.reason, "invalid-request")
            )
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the caller is told nothing of it
            self._log(f"request {request[REQUEST_ID]} failed: {type(error).__name__}")
            message = "The router failed."
            response = error_answer(request, Denied(500, "internal", message, "router-failed"))
        if not response.prepared:
            response.headers["X-Request-Id"] = request[REQUEST_ID]
            response.headers["Cache-Control"] = "no-store"
            response.headers["Server"] = "genai-smart-router"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    # Health

    async def healthz(self, _request: web.Request) -> web.Response:
        """Say that the process is up."""
        return web.json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say whether the license permits serving; all it tells about the license is a code."""
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
                deny(502, "upstream-missing", "No upstream is configured.", "routing-failed")
            ticket = await self._promise(decision, caller, body, row)
            try:
                return await self._upstream.forward(request, body, ticket, row)
            finally:
                # Whatever happened, a ticket that is still open counts in full.
                await asyncio.shield(ticket.settle(None))

    @asynccontextmanager
    async def _metered(self, request: web.Request) -> AsyncIterator[tuple[Row, Decision]]:
        """Write one row for the request, however it ends."""
        begun = time.monotonic()
        row = Row(request[REQUEST_ID], request.path, self._clock())
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
            raise unauthorized(
                "Send a bearer token that this router knows.", 'Bearer realm="router"'
            )
        row.caller = caller.name
        if not decision.serving:
            # Whatever the code, the whole installation is blocked.
            raise license_denial(decision.reason or "license-invalid", 503)
        return caller

    async def _body(self, request: web.Request) -> dict[str, Any]:
        data = await request.read()
        try:
            body = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            deny(400, "invalid-request", "The body is not JSON.", "invalid-request")
        if not isinstance(body, dict):
            deny(400, "invalid-request", "The body is not a JSON object.", "invalid-request")
        return body

    def _route(self, body: dict[str, Any], row: Row, decision: Decision) -> None:
        name = body.get("model")
        model = self._models.get(name) if isinstance(name, str) else None
        if model is None:
            deny(404, "model-unknown", "GET /v1/models lists the models.", "routing-failed")
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

    # Operators

    async def status(self, request: web.Request) -> web.Response:
        """Show an administrator the safe facts."""
        if not await self._passwords.accept(request.headers.get("Authorization")):
            raise unauthorized(
                "Send an administrator's name and password.",
                'Basic realm="router", charset="UTF-8"',
            )
        facts = status_facts(self._guard, self._clock())
        running = {"running_requests": self._admission.running}
        return web.json_response(facts | running | {"request_id": request[REQUEST_ID]})

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics for a client with the metrics token."""
        path = self._config.admin.metrics_token_file
        if path is None:
            raise web.HTTPNotFound
        if not await brings_token(request.headers.get("Authorization"), path):
            raise unauthorized("Send the metrics token.", 'Bearer realm="metrics"')
        decision = self._guard.decision
        now = self._clock()
        usage = used_tokens(self._guard.state, decision, now) or {}
        page = self._metrics.render(
            decision, usage, self._admission.running, now, self._guard.lease_state
        )
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
