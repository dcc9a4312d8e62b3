"""What every surface of a running router shows of a failure, and what none ever shows."""

from collections.abc import Callable
from dataclasses import dataclass

from licensing.envelope import Envelope
from licensing.names import ROUTER_CODES
from tests.router.running import ANSWER, PASSWORD, PROMPT, TOKEN, House


@dataclass(frozen=True)
class Mode:
    """One way to fail."""

    name: str
    code: str
    arrange: Callable[[House], None]
    cause: str | None = None
    """The verifier's code, as the administrator sees it."""
    status: int = 503
    """What callers get."""
    ready: bool = False
    genuine: bool = True
    """Whether the license's facts may be shown."""


def require_shown(mode: Mode, house: House) -> None:
    """Ask every surface of a router that is up, stop it, and compare what they show."""
    ready = house.ask("GET", "/readyz")
    health = house.ask("GET", "/healthz")
    chat = house.chat()
    models = house.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    status = house.status()
    metrics = house.metrics()
    rows = house.rows
    house.stop()

    assert health.status == 200
    if mode.ready:
        assert (ready.status, ready.json) == (200, {"status": "ready"})
        assert models.status == 200
    else:
        assert (ready.status, ready.json) == (503, {"status": "not-ready", "code": mode.code})
        assert (models.status, models.code) == (503, mode.code)

    assert (chat.status, chat.code) == (mode.status, mode.code)
    error = chat.json["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert error["message"] == ROUTER_CODES[mode.code].meaning
    assert error["request_id"] == chat.headers["X-Request-Id"]
    assert house.upstream.bodies == []

    assert status.status == 200
    facts = status.json
    assert facts["serving"] is mode.ready
    if not mode.ready:
        assert (facts["status"], facts["reason"]) == ("blocked", mode.code)
        assert facts["next_step"] == ROUTER_CODES[mode.code].next_step
        assert facts["cause"] == mode.cause
        assert (facts["license"] is not None) is mode.genuine

    page = metrics.body.decode()
    assert f'license_denials_total{{code="{mode.code}"}}' in page
    assert f"license_serving {int(mode.ready)}" in page
    assert (f'license_blocked{{code="{mode.code}"}} 1' in page) is not mode.ready

    row = rows[0]
    assert (row["outcome"], row["code"]) == ("license-denied", mode.code)
    assert row["request_id"] == error["request_id"]
    assert row["license_status"] == ("valid" if mode.ready else "blocked")
    assert row.get("license_reason") == (None if mode.ready else mode.code)
    assert ("license_id" in row) is mode.genuine

    everything = b"".join(each.body for each in (ready, chat, models, status, metrics))
    shown = everything.decode() + str(rows) + house.said
    license_ = house.license_file
    hidden = [TOKEN, PASSWORD, PROMPT, ANSWER, "NewCo", "gold", "BEGIN", "argon2"]
    if license_.is_file() and mode.genuine:
        envelope = Envelope.parse(license_.read_bytes())
        hidden += [license_.read_text()[20:60], envelope.signatures[0].sig.hex()]
    assert [each for each in hidden if each in shown] == []
    assert [each for each in hidden if each in ready.body.decode() + chat.body.decode()] == []
    assert "lic_" not in (ready.body + chat.body + models.body).decode()
