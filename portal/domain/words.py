"""How pages and mails show terms: names, amounts and lengths of time."""

from typing import Final

FEATURE_NAMES: Final = {
    "admin_reports": "Admin reports",
    "audit_export": "Audit export",
    "dynamic_routing": "Dynamic routing",
    "external_policy_routing": "External policy routing",
    "model_group_contracts": "Model-group contracts",
    "pii_filtering": "PII filtering",
    "private_upstreams": "Private upstreams",
    "retention_rollups": "Retention rollups",
    "routing": "Routing",
    "usage_export": "Usage export",
    "usage_reporting": "Usage reporting",
}
LIMIT_NAMES: Final = {
    "tokens_per_window": "Tokens in the window",
    "window_s": "Window",
    "max_concurrency": "Concurrent requests",
    "max_instances": "Instances",
    "max_seats": "Seats",
}
MODE_NAMES: Final = {"offline": "Offline", "lease": "Leased"}

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400


def feature_name(feature: str) -> str:
    """Return a feature's name, such as `PII filtering`; an unknown feature stays as it is."""
    return FEATURE_NAMES.get(feature, feature)


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """Return `1 day`, `2 days`, `1,200 tokens`."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def duration(seconds: int) -> str:
    """Return a length of time in its two largest parts: `72 hours`, `30 days`, `1 hour 30 minutes`.

    Days are used from four days on, so that a 72-hour evaluation is called by its name.
    """
    units = [("hour", _HOUR_S), ("minute", _MINUTE_S), ("second", 1)]
    if seconds >= 4 * _DAY_S:
        units.insert(0, ("day", _DAY_S))
    parts = []
    left = seconds
    for noun, length in units:
        amount, left = divmod(left, length)
        if amount:
            parts.append(count(amount, noun))
    return " ".join(parts[:2]) or count(0, "second")
