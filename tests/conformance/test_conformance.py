"""The conformance command line: the reference passes, and what is wrong is found."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import licensing
from devtools import conformance, sequences

ROOT = Path(__file__).parents[2]
OURS = [sys.executable, "-m", "router.conformance"]


def test_the_sequences_are_what_their_source_makes() -> None:
    assert sequences.FILE.read_bytes() == sequences.content(), "run make vectors"


def test_the_reference_passes_every_vector() -> None:
    count, failures = conformance.run(OURS)
    assert failures == []
    assert count > 600


def wrong(how: str) -> list[str]:
    """Return the reference with one thing wrong."""
    return [
        sys.executable,
        "-c",
        f"import router.conformance as c\nright = dict(c.ANSWERS)\n{how}\nc.main()",
    ]


BOUNDS_NAMED = (
    "time",
    "features",
    "limits",
    "window",
    "budget-size",
    "carry-over",
    "budget-id",
    "period",
    "period-fresh",
)
WRONG = {
    "grace ends a second late": (
        (
            "c.ANSWERS['decide'] = lambda r: right['decide']("
            "{**r, 'config': {**r['config'], 'grace_s': r['config'].get('grace_s', 86400) + 1}})"
        ),
        {"grace.to-the-second", "grace.goes-on", "state.before"},
    ),
    "it forgets between steps": (
        "c.ANSWERS['decide'] = lambda r: right['decide']({**r, 'state': None})",
        {
            "grace.to-the-second",
            "grace.goes-on",
            "grace.never-covers-expiry",
            "clock.rollback",
            "clock.a-higher-revision-mends-it",
            "revision.a-lower-one-is-refused",
            "keyset.a-lower-version-is-refused",
            "bundle.a-license-asks-for-one",
            "bundle.an-older-one-brings-nothing-back",
            "bundle.remembered",
            "bundle.gone-after-it-was-seen",
            "bundle.effective-later",
            "compromise.a-bundle-that-only-it-vouched-for-is-forgotten",
            "compromise.a-revision-that-another-key-vouched-for-stays",
            "compromise.a-revision-that-only-it-vouched-for-is-forgotten",
            "compromise.the-fetched-license-outlives-the-file",
            "lease.period-budgets",
            "lease.period-budgets-joined-late",
            "state.before",
        },
    ),
    "it takes every lease": (
        "c.ANSWERS['accept_lease'] = lambda r: {'result': 'installed'}",
        {
            f"accept.{name}"
            for name in (
                "other-request",
                "other-instance",
                "other-deployment",
                "not-above",
                "broken",
                "future",
                *(f"bound-{name}-beyond" for name in BOUNDS_NAMED),
            )
        },
    ),
    "it never trusts a clone warning": (
        (
            "import base64, json\n"
            "def payload(r):\n"
            "    lease = json.loads(base64.b64decode(r['lease_b64']))\n"
            "    return base64.b64decode(lease['payload'])\n"
            "c.ANSWERS['accept_lease'] = lambda r: ({'result': 'rejected'}"
            " if b'clone_warning' in payload(r) else right['accept_lease'](r))"
        ),
        {"accept.clone-warning"},
    ),
    "it refills at a crash": (
        (
            "c.ANSWERS['budget'] = lambda r: right['budget']"
            "({**r, 'state': None} if r['act'] == 'crash' else r)"
        ),
        {"budget.crash"},
    ),
    "it renews at the window's begin": (
        "c.ANSWERS['renewal_moment'] = lambda r: {'moment': 1800000000 + 8 * 3600}",
        {"moment.inside-the-window", "moment.a-window-of-one-second"},
    ),
    "it never forgets": (
        (
            "from router.state.store import State\n"
            "State.forgetting = lambda state, compromised: state"
        ),
        {
            "compromise.a-bundle-that-only-it-vouched-for-is-forgotten",
            "compromise.a-revision-that-only-it-vouched-for-is-forgotten",
        },
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_implementation_that_is_wrong_fails_the_right_vectors(name: str) -> None:
    how, expected = WRONG[name]
    _, failures = conformance.run(wrong(how))
    assert {failure.name for failure in failures} == expected


BROKEN = {
    "row 9: it is valid one second more": (
        "at >= license_.expires_at",
        "at > license_.expires_at",
        {"times.expires-at", "license.order-9-10", "grace.never-covers-expiry"},
    ),
    "row 10: any instance will do": (
        "fingerprint not in allowed",
        "not allowed",
        {
            "grace.not-for-another-instance",
            "license.binding-case",
            "license.binding-none",
            "license.binding-other",
            "license.binding-prefix",
            "license.order-10-11",
        },
    ),
    "row 11: the keyset has no floor": (
        "trust.version, seen.keyset_version",
        "trust.version, 0",
        {
            "times.keyset-floor-above",
            "license.order-11-12-keyset",
            "keyset.a-lower-version-is-refused",
        },
    ),
    "row 12: entries take effect a second late": (
        "entry.effective_at <= at",
        "entry.effective_at < at",
        {"times.revocation-at", "bundle.effective-later"},
    ),
    "row 13: nobody minds an old bundle": (
        "bundle.version < floor",
        "bundle.version < 0",
        {"times.bundle-floor-below", "bundle.an-older-one-brings-nothing-back"},
    ),
}


def failing_with(tmp_path: Path, module: str, right: str, wrong: str) -> set[str]:
    """Return the vectors a router fails over a copy of `licensing` in which one line is wrong."""
    copy = shutil.copytree(
        Path(licensing.__file__).parent,
        tmp_path / "licensing",
        ignore=shutil.ignore_patterns("vectors", "__pycache__"),
    )
    judge = copy / module
    text = judge.read_text()
    assert text.count(right) == 1
    judge.write_text(text.replace(right, wrong))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    _, failures = conformance.run(["env", f"PYTHONPATH={path}", sys.executable, "-P", *OURS[1:]])
    return {failure.name for failure in failures}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_of_the_table_is_seen_in_the_code_that_serves(
    name: str, tmp_path: Path
) -> None:
    right, wrong, expected = BROKEN[name]
    assert failing_with(tmp_path, "verify.py", right, wrong) == expected


def bound(name: str, *more: str) -> set[str]:
    """Return the stateful vectors of a bound that fail where nobody minds it, and more."""
    return {f"lease.bound-{name}", f"accept.bound-{name}-beyond", *more}


UNBOUND = {
    "it may outlast its license": (
        "if lease.grace_until_at > bounds.expires_at",
        "if False",
        bound("time", "lease.bounds-grace-beyond", "lease.bounds-expires-beyond"),
    ),
    "it may last a second longer": (
        "lease.grace_until_at > bounds.expires_at",
        "lease.grace_until_at > bounds.expires_at + 1",
        bound("time", "lease.bounds-grace-beyond", "lease.bounds-expires-beyond"),
    ),
    "it must end before its license": (
        "lease.grace_until_at > bounds.expires_at",
        "lease.grace_until_at >= bounds.expires_at",
        {
            "lease.bound-time",
            "accept.bound-time-at",
            "lease.bounds-grace-at",
            "lease.bounds-expires-at",
        },
    ),
    "it may add a feature": (
        "if not set(lease.features or ()) <= set(bounds.features)",
        "if False",
        bound("features", "lease.bounds-features-beyond"),
    ),
    "it must have every feature": (
        "if not set(lease.features or ()) <= set(bounds.features)",
        "if set(lease.features or ()) >= set(bounds.features)",
        {
            "lease.bound-features",
            "accept.bound-features-at",
            "lease.bounds-features-at",
        },
    ),
    "a limit may be one larger": (
        "else given > bound",
        "else given > bound + 1",
        bound(
            "limits",
            "lease.bounds-max_concurrency-beyond",
            "lease.bounds-max_instances-beyond",
            "lease.bounds-max_seats-beyond",
            "lease.bounds-tokens_per_window-beyond",
            "lease.bounds-slow-burst",
        ),
    ),
    "nobody minds max_instances": (
        "if given is None or bound is None",
        'if given is None or bound is None or name == "max_instances"',
        {"lease.bounds-max_instances-beyond"},
    ),
    "a window may be shorter": (
        "given < bound if name",
        "False if name",
        bound("window", "lease.bounds-window_s-beyond"),
    ),
    "a budget may be a token larger": (
        "ours.tokens_total > most.tokens_total",
        "ours.tokens_total > most.tokens_total + 1",
        bound(
            "budget-size",
            "lease.bounds-tokens_total-beyond",
            "lease.bounds-not-active",
            "lease.period-tokens-beyond",
        ),
    ),
    "it may carry over from any budget": (
        "if ours.carry_over_from not in (None, named)",
        "if False",
        bound(
            "carry-over",
            "lease.bounds-carry-over-beyond",
            "lease.bounds-carry-over-none",
            "lease.bounds-carry-over-no-budget",
        ),
    ),
    "any budget will do": (
        "if period_s is None",
        "if False",
        bound(
            "budget-id",
            "lease.bounds-budget-id",
            "lease.period-not-permitted",
            *(f"lease.period-of-{value}" for value in ("text", "0", "true", "below-0")),
        ),
    ),
    "a period ends a second sooner": (
        "at < max(periods.values()) + period_s",
        "at < max(periods.values()) + period_s - 1",
        {
            "accept.bound-period-beyond",
            "accept.bound-period-fresh-beyond",
            "lease.period-budgets",
            "lease.period-budgets-joined-late",
            "lease.period-next-beyond",
            "lease.period-latest-counts",
        },
    ),
    "a period begins with the first budget": (
        "max(periods.values())",
        "min(periods.values())",
        {
            "lease.period-budgets",
            "lease.period-budgets-joined-late",
            "lease.period-latest-counts",
        },
    ),
    "a period begins again whenever it is seen": (
        "budget_id in (own.budget_id, *periods)",
        "budget_id == own.budget_id",
        {"lease.period-budgets"},
    ),
    "the first period begins when it is met": (
        "at if periods else license_.not_before_at",
        "at",
        {"lease.period-budgets-joined-late"},
    ),
    "a lease for another license is compared too": (
        "if lease.license_sha256 != license_.payload_sha256",
        "if False",
        {"lease.bounds-another-license"},
    ),
}


@pytest.mark.parametrize("name", UNBOUND)
def test_a_bound_of_a_lease_that_is_not_kept_is_seen(name: str, tmp_path: Path) -> None:
    right, wrong, expected = UNBOUND[name]
    assert failing_with(tmp_path, "bounds.py", right, wrong) == expected


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit(3)", "ended"),
        ("print('hello', flush=True); input()", "its answer is not JSON"),
        ("print('{}', flush=True); input()", "answered another request"),
        ("input(); input()", "did not answer within 0.5 s"),
    ],
)
def test_a_program_that_does_not_answer_is_said(program: str, said: str) -> None:
    _, failures = conformance.run([sys.executable, "-c", program], answer_s=0.5)
    assert len(failures) == 1
    assert said in failures[0].detail


def test_the_command_prints_and_exits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devtools.conformance", "--json", "--", *OURS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == []
    missing = str(tmp_path / "no-such-program")
    done = subprocess.run(
        [sys.executable, "-m", "devtools.conformance", "--", missing],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot run" in done.stderr


def test_a_request_that_cannot_be_read_gets_an_answer() -> None:
    done = subprocess.run(
        OURS,
        input='{"id": 1, "op": "fly"}\nnonsense\n{"id": 3, "op": "verify"}\n',
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [1, None, 3]
    assert all("error" in answer for answer in answers)
