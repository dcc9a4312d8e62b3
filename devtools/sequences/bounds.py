"""Sequences of leases beside the license that bounds them: at each bound, and one step beyond."""

from typing import Any, Final

from devtools.sequences.stateful import (
    ANSWER,
    ASKED,
    AT,
    DAY_S,
    DEPLOYMENT,
    HOUR_S,
    VALID,
    VENDOR,
    Object,
    blocked,
    identifier,
    sequence,
    step,
    text,
)
from devtools.vectors.keys import INSTANCE
from licensing.license import Budget, Limits


def budget(number: int, tokens: int = 100, **changes: Any) -> Budget:
    """Return a budget."""
    return Budget(budget_id=identifier("bud", number), tokens_total=tokens, **changes)


BOUNDED: Final = VENDOR.license(
    "lease",
    not_before_at=AT,
    expires_at=AT + 30 * DAY_S,
    features=("routing",),
    limits=Limits(max_concurrency=8, tokens_per_window=50, window_s=60),
    budget=budget(1, carry_over_from=identifier("bud", 9)),
)
PERIODIC: Final = VENDOR.license(
    "lease",
    not_before_at=AT,
    expires_at=AT + 30 * DAY_S,
    budget=budget(1),
    ext={"budget_period_s": DAY_S},
)


def bounds() -> list[tuple[str, str, Object, Object]]:
    """Return each bound of a lease: a name, the rule, what is still right, and what is beyond."""
    end = AT + 30 * DAY_S
    return [
        (
            "time",
            "No lease lasts longer than its license.",
            {"grace_until_at": end},
            {"grace_until_at": end + 1},
        ),
        (
            "features",
            "No feature that the license lacks.",
            {"features": ("routing",)},
            {"features": ("pii_filtering", "routing")},
        ),
        (
            "limits",
            "No limit above the license's.",
            {"limits": Limits(max_concurrency=8)},
            {"limits": Limits(max_concurrency=9)},
        ),
        (
            "window",
            "No shorter window, for the same tokens.",
            {"limits": Limits(tokens_per_window=50, window_s=60)},
            {"limits": Limits(tokens_per_window=50, window_s=59)},
        ),
        (
            "budget-size",
            "No larger budget.",
            {"budget": budget(1)},
            {"budget": budget(1, 101)},
        ),
        (
            "carry-over",
            "Nothing is carried over but from where the license says.",
            {"budget": budget(1, carry_over_from=identifier("bud", 9))},
            {"budget": budget(1, carry_over_from=identifier("bud", 8))},
        ),
        (
            "budget-id",
            "The license's budget, where it permits no periods.",
            {"budget": budget(1)},
            {"budget": budget(2)},
        ),
    ]


def bounded() -> list[Object]:
    """Sequences of leases that go beyond their license, and are as if there were none."""
    required = blocked("license-lease-required")
    instance = {"instance_keyid": INSTANCE.keyid}

    def period(now_at: int, expect: tuple[bool, str, str | None], number: int) -> Object:
        long = {"expires_at": AT + 9 * DAY_S, "grace_until_at": AT + 9 * DAY_S}
        lease = VENDOR.lease(PERIODIC, budget=budget(number), **long)
        return step(now_at, expect, license=PERIODIC, lease=lease)

    second, third, fourth = (identifier("bud", number) for number in (2, 3, 4))
    return [
        *(
            sequence(
                f"lease.bound-{name}",
                comment,
                [
                    step(AT, VALID, license=BOUNDED, lease=VENDOR.lease(BOUNDED, **right)),
                    step(AT, required, license=BOUNDED, lease=VENDOR.lease(BOUNDED, **beyond)),
                ],
                more=instance,
            )
            for name, comment, right, beyond in bounds()
        ),
        sequence(
            "lease.period-budgets",
            "A new budget id a period; the license's own and those that were in use are not new.",
            [
                period(AT, VALID, 1),
                period(AT, VALID, 2),
                period(AT + DAY_S - 1, required, 3),
                period(AT + DAY_S, VALID, 3),
                period(AT + DAY_S, VALID, 2),
                period(AT + 2 * DAY_S - 1, VALID, 1),
                period(AT + 2 * DAY_S - 1, required, 4),
                period(AT + 2 * DAY_S, VALID, 4),
            ],
            more=instance,
            after={
                "periods": {DEPLOYMENT: {second: AT, third: AT + DAY_S, fourth: AT + 2 * DAY_S}}
            },
        ),
        sequence(
            "lease.period-budgets-joined-late",
            "The first that is met may be as old as the license; the next begins when it is met.",
            [
                period(AT + 5 * DAY_S, VALID, 2),
                period(AT + 5 * DAY_S + 10, VALID, 3),
                period(AT + 6 * DAY_S + 9, required, 4),
                period(AT + 6 * DAY_S + 10, VALID, 4),
            ],
            more=instance,
            after={"periods": {DEPLOYMENT: {second: AT, third: AT + 5 * DAY_S + 10}}},
        ),
    ]


def accepts_within() -> list[Object]:
    """Which leases are installed beside a license that bounds them; the others leave the held."""
    known = {identifier("bud", 2): AT + HOUR_S - DAY_S}
    late = {identifier("bud", 2): AT + HOUR_S - DAY_S + 1}
    period = "A new budget id a period."
    cases: list[tuple[str, str, bytes, Object, Object]] = [
        *(
            (f"{name}-{kind}", comment, BOUNDED, changes, {})
            for name, comment, within, beyond in bounds()
            for kind, changes in (("at", within), ("beyond", beyond))
        ),
        ("period-at", period, PERIODIC, {"budget": budget(3)}, {"periods": known}),
        ("period-beyond", period, PERIODIC, {"budget": budget(3)}, {"periods": late}),
        (
            "period-fresh-beyond",
            "A fresh answer sets the clock, so the period is over when that says so.",
            PERIODIC,
            {"budget": budget(3), "issued_at": AT + HOUR_S - 1},
            {"periods": known, "fresh": True},
        ),
    ]
    return [
        {
            "sequence_id": f"accept.bound-{name}",
            "comment": comment,
            **ASKED,
            **more,
            "license_b64": text(license_),
            "lease_b64": text(VENDOR.lease(license_, **{**ANSWER, **changes})),
            "expect": {"result": "rejected" if name.endswith("-beyond") else "installed"},
        }
        for name, comment, license_, changes, more in cases
    ]
