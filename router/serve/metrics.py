"""Gauges and counters in the Prometheus text format; nothing but safe scalars."""

from collections import Counter
from typing import Final

from router.documents.decision import Decision
from router.lease.store import LeaseState
from router.serve.usage import Outcome

PREFIX: Final = "smart_llmrouter_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STATUSES: Final = ("valid", "grace", "blocked", "development")
_INFO: Final = ("license_id", "customer_id", "deployment_id", "sku", "mode", "key_id")


class Metrics:
    """Everything counted since the process started."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._denials: Counter[str] = Counter()

    def count(self, outcome: Outcome, code: str | None) -> None:
        """Count one request of a caller."""
        self._outcomes[outcome] += 1
        if outcome == "license-denied" and code is not None:
            self._denials[code] += 1

    def render(
        self,
        decision: Decision,
        usage: dict[str, int],
        running: int,
        now: int,
        lease: LeaseState | None = None,
    ) -> str:
        """Return the whole page. `usage` maps names to tokens."""
        page = _Page()
        page.add("license_status", "gauge", "1 for the current status.")
        for status in STATUSES:
            page.value("license_status", int(decision.status == status), status=status)
        page.add("license_serving", "gauge", "Whether the license permits serving.")
        page.value("license_serving", int(decision.serving))
        page.add("license_blocked", "gauge", "1 for the code that blocks.")
        if not decision.serving:
            page.value("license_blocked", 1, code=decision.reason or "")
        page.add("license_grace_active", "gauge", "Whether validation grace is active.")
        page.value("license_grace_active", int(decision.grace is not None))
        if decision.grace is not None:
            page.add("license_grace_seconds_left", "gauge", "Until validation grace ends.")
            page.value("license_grace_seconds_left", max(0, decision.grace.ends_at - now))
        if "expires_at" in decision.facts:
            page.add("license_expiry_seconds", "gauge", "Until the license expires.")
            page.value("license_expiry_seconds", decision.facts["expires_at"] - now)
        if decision.lease is not None:
            page.add("license_lease_seconds_left", "gauge", "Until the lease and its grace end.")
            left = max(0, decision.lease.grace_until_at - now)
            page.value("license_lease_seconds_left", left)
        if decision.facts.get("mode") == "lease" and lease is not None:
            page.add("license_lease_failed_attempts", "gauge", "Renewals that failed in a row.")
            page.value("license_lease_failed_attempts", lease.failures if lease.trouble else 0)
            if (due_at := lease.due_at(now)) is not None:
                page.add("license_lease_renewal_seconds", "gauge", "Until the next renewal.")
                page.value("license_lease_renewal_seconds", due_at - now)
        known = {name: str(decision.facts[name]) for name in _INFO if name in decision.facts}
        if known:
            page.add("license_info", "gauge", "Safe facts of the license.")
            page.value("license_info", 1, **known)
        for name, tokens in usage.items():
            page.add(f"license_{name}", "gauge", "In tokens.")
            page.value(f"license_{name}", tokens)
        page.add("requests_running", "gauge", "Requests at the upstream.")
        page.value("requests_running", running)
        page.add("license_denials_total", "counter", "Requests the license denied, by code.")
        for code, number in sorted(self._denials.items()):
            page.value("license_denials_total", number, code=code)
        page.add("requests_total", "counter", "Requests of callers, by outcome.")
        for outcome, number in sorted(self._outcomes.items()):
            page.value("requests_total", number, outcome=outcome)
        return page.text()


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, help_text: str) -> None:
        self._lines.append(f"# HELP {PREFIX}{name} {help_text}")
        self._lines.append(f"# TYPE {PREFIX}{name} {kind}")

    def value(self, name: str, number: int, **labels: str) -> None:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        self._lines.append(f"{PREFIX}{name}{'{' + inside + '}' if inside else ''} {number}")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
