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


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_of_the_table_is_seen_in_the_code_that_serves(
    name: str, tmp_path: Path
) -> None:
    """The router runs over a copy of `licensing` in which one row is wrong."""
    right, wrong, expected = BROKEN[name]
    copy = shutil.copytree(
        Path(licensing.__file__).parent,
        tmp_path / "licensing",
        ignore=shutil.ignore_patterns("vectors", "__pycache__"),
    )
    judge = copy / "verify.py"
    text = judge.read_text()
    assert text.count(right) == 1
    judge.write_text(text.replace(right, wrong))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    _, failures = conformance.run(["env", f"PYTHONPATH={path}", sys.executable, "-P", *OURS[1:]])
    assert {failure.name for failure in failures} == expected


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
