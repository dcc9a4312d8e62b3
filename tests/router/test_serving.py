"""A router that serves: what passes through, what is counted, and what changes while it runs."""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from licensing.license import Budget, Limits
from router.clock import unix_now
from tests.router.papers import identifier
from tests.router.running import ANSWER, NOW, OTHER_TOKEN, TOKEN, House, house

pytestmark = pytest.mark.slow

BUDGET = identifier("bud", 1)
NEXT_BUDGET = identifier("bud", 2)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[House]:
    """An installation, not started."""
    with house(tmp_path) as built:
        yield built


def usage(served: House) -> dict[str, int]:
    """Return what the administrator sees of budget and window."""
    found: dict[str, int] = served.status().json["usage"]
    return found


def stream(served: House, **changes: Any) -> list[Any]:
    """Ask for a stream; return its events."""
    body = {
        "model": "general",
        "max_tokens": 20,
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
        **changes,
    }
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Authorization": f"Bearer {TOKEN}"},
        )
        answer = connection.getresponse()
        assert answer.status == 200
        lines = answer.read().decode().split("\n\n")
    finally:
        connection.close()
    texts = [line.removeprefix("data: ") for line in lines if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def test_a_completion_passes_through_and_is_counted(served: House) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=1000))
    served.start()
    answer = served.chat()
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == ANSWER
    assert usage(served)["budget_tokens_used"] == 12
    (row,) = served.rows
    assert (row["outcome"], row["caller"], row["model"]) == ("ok", "app-1", "general")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (7, 5, 12)
    assert "Authorization" not in served.upstream.headers_seen[0]


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_is_metered_whether_or_not_its_caller_asks_for_usage(
    served: House, asks: bool
) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=1000))
    served.start()
    events = stream(served, **({"stream_options": {"include_usage": True}} if asks else {}))
    assert events[-1] == "[DONE]"
    assert [event for event in events[:-1] if event["usage"]] == (
        [{"choices": [], "usage": served.upstream.usage}] if asks else []
    )
    assert served.upstream.bodies[0]["stream_options"] == {"include_usage": True}
    assert usage(served)["budget_tokens_used"] == 12


@pytest.mark.parametrize("how", ["cut", "untold"])
def test_a_stream_whose_usage_is_not_known_counts_its_reservation(served: House, how: str) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=1000))
    served.start()
    if how == "cut":
        served.upstream.cut = True
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            stream(served)
    else:
        served.upstream.usage = None
        stream(served)
    served.stop()
    (row,) = served.rows
    served.start()
    assert usage(served)["budget_tokens_used"] == row["reserved_tokens"] > 20


def test_an_upstream_that_refuses_costs_nothing_and_one_that_is_gone_is_said(
    served: House,
) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=1000))
    served.start()
    served.upstream.status = 500
    assert served.chat().status == 500
    served.upstream.status = 401
    refused = served.chat()
    assert (refused.status, refused.code) == (502, "upstream-failed")
    assert usage(served)["budget_tokens_used"] == 0
    assert [row["outcome"] for row in served.rows] == ["upstream-failed", "upstream-failed"]


def test_who_may_call_and_what_they_may_ask(served: House) -> None:
    served.install()
    served.start()
    assert served.chat(token="nobody's").code == "unauthorized"
    assert served.ask("GET", "/v1/models").status == 401
    models = served.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    assert [each["id"] for each in models.json["data"]] == ["general"]
    assert served.chat(model="other").code == "model-unknown"
    assert served.chat(messages=[]).code == "invalid-request"
    assert served.chat(max_tokens=-1).code == "invalid-request"
    raw = served.ask("POST", "/v1/chat/completions", b"{", {"Authorization": f"Bearer {TOKEN}"})
    assert raw.code == "invalid-request"
    assert served.status(password="wrong").status == 401
    assert served.metrics(token="wrong").status == 401
    assert served.metrics(token="not-utf8-\xf6").status == 401
    assert served.chat(token="not-utf8-\xf6").code == "unauthorized"
    assert served.ask("GET", "/nowhere").code == "not-found"
    assert served.upstream.bodies == []


def test_callers_quotas_are_apart_from_the_license(served: House) -> None:
    served.callers = [
        {"name": "small", "token_sha256": sha256(TOKEN.encode()).hexdigest(), "tokens_total": 40},
        {"name": "large", "token_sha256": sha256(OTHER_TOKEN.encode()).hexdigest()},
    ]
    served.install()
    served.start()
    assert served.chat().status == 200
    refused = served.chat()
    assert (refused.status, refused.code) == (429, "quota-exceeded")
    assert served.chat(token=OTHER_TOKEN).status == 200
    assert [row["outcome"] for row in served.rows] == ["ok", "quota-denied", "ok"]


def test_as_many_requests_run_as_the_license_permits(served: House) -> None:
    served.install(limits=Limits(max_concurrency=2))
    served.start()
    served.upstream.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(served.chat) for _ in range(2)]
        for _ in running:
            assert served.upstream.arrived.acquire(timeout=10)
        refused = served.chat()
        assert (refused.status, refused.code) == (429, "license-limit-exceeded")
        assert served.ask("GET", "/readyz").status == 200
        served.upstream.gate.set()
        assert [each.result().status for each in running] == [200, 200]
    assert served.chat().status == 200


def test_a_replacement_takes_effect_and_refills_nothing(served: House) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=60))
    served.start()
    assert served.chat().status == 200
    assert usage(served)["budget_tokens_left"] == 48
    served.install(
        revision=2,
        license_id=identifier("lic", 2),
        budget=Budget(budget_id=BUDGET, tokens_total=60),
    )
    wait_for_license(served, identifier("lic", 2))
    assert usage(served)["budget_tokens_left"] == 48


def test_a_top_up_takes_effect_without_a_restart_and_carries_over_once(served: House) -> None:
    served.install(budget=Budget(budget_id=BUDGET, tokens_total=40))
    served.start()
    exhausted = [served.chat() for _ in range(2)][-1]
    assert (exhausted.status, exhausted.code) == (429, "license-limit-exceeded")
    assert served.ask("GET", "/readyz").status == 200
    top_up = Budget(budget_id=NEXT_BUDGET, tokens_total=100, carry_over_from=BUDGET)
    served.install(revision=2, license_id=identifier("lic", 2), budget=top_up)
    wait_for_license(served, identifier("lic", 2))
    # What was left of the old budget came along, once.
    assert usage(served)["budget_tokens_total"] == 128
    assert served.chat().status == 200
    served.stop()
    served.start()
    assert usage(served)["budget_tokens_total"] == 128
    chained = Budget(budget_id=identifier("bud", 3), tokens_total=10, carry_over_from=BUDGET)
    served.install(revision=3, license_id=identifier("lic", 3), budget=chained)
    wait_for_license(served, identifier("lic", 3))
    assert usage(served)["budget_tokens_total"] == 10, "the old budget gave what it had"


def test_a_license_that_is_half_written_while_it_serves(served: House) -> None:
    served.settings["grace_period_on_validation_error"] = "24h"
    served.install()
    served.start()
    whole = served.license_file.read_bytes()
    served.put(served.license_file, whole[:200])
    wait_for_status(served, "grace")
    assert served.chat().status == 200
    assert served.status().json["grace"]["reason"] == "license-invalid"
    assert "license_grace_active 1" in served.metrics().body.decode()
    served.put(served.license_file, whole)
    wait_for_status(served, "valid")
    assert served.status().json["grace"] is None


def test_a_license_that_ends_while_it_serves_ends_to_the_second(served: House) -> None:
    served.install(expires_at=NOW + 10**6)
    served.start()
    served.install(revision=2, license_id=identifier("lic", 2), expires_at=unix_now() + 4)
    wait_for_license(served, identifier("lic", 2))
    served.wait_for("license-expired")
    assert served.chat().code == "license-expired"


def wait_for_license(served: House, license_id: str) -> None:
    """Wait until a license is in use."""
    _wait(served, lambda facts: facts["license"] and facts["license"]["license_id"] == license_id)


def wait_for_status(served: House, status: str) -> None:
    """Wait until the license has a status."""
    _wait(served, lambda facts: facts["status"] == status)


def _wait(served: House, holds: Any) -> None:
    pause = threading.Event()
    facts: Any = None
    for _ in range(200):
        facts = served.status().json
        if holds(facts):
            return
        pause.wait(0.05)
    raise AssertionError(f"{facts}; {served.said}")
