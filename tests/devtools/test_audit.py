"""The audit of dependencies: what could not be checked is no good news."""

import json
import os
import re
import subprocess
import sys

import pytest

from devtools.audit import LOCKED, ROOT, UNCHECKED, VULNERABLE, judge, locked

FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
WANTED = {"flask==1.0", "click==2.0"}
NOWHERE = "http://127.0.0.1:1"


def report(*flask_flaws: object, click: dict[str, object] | None = None) -> str:
    dependencies = [
        {"name": "flask", "version": "1.0", "vulns": list(flask_flaws)},
        click or {"name": "click", "version": "2.0", "vulns": []},
    ]
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_only_a_whole_report_without_flaws_is_good() -> None:
    assert judge(WANTED, report())[0] == 0
    status, lines = judge(WANTED, report(FLAW))
    assert status == VULNERABLE
    assert lines == ["flask 1.0: PYSEC-2026-1, fixed in 2.0"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{}",
        "null",
        "Found no vulnerabilities",
        report(click={"name": "click", "skip_reason": "not on PyPI"}),
        report(FLAW, click={"name": "click", "skip_reason": "not on PyPI"}),
        report(click={"name": "click", "version": "1.9", "vulns": []}),
        report(click={"name": "click", "version": "2.0"}),
    ],
)
def test_what_was_not_checked_fails(said: str) -> None:
    status, lines = judge(WANTED, said)
    assert status == UNCHECKED
    assert "could not check" in lines[-1]


def test_without_a_network_it_fails_in_a_line() -> None:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    ran = subprocess.run(
        [sys.executable, "-m", "devtools.audit"],
        check=False,
        cwd=ROOT,
        env={**environment, "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (UNCHECKED, "")
    assert ran.stderr.startswith("could not check")
    assert "Traceback" not in ran.stderr


def test_every_locked_package_is_asked_for() -> None:
    text = LOCKED.read_text()
    assert len(locked(text)) == text.count("==") > 30


def test_the_tests_do_not_run_it() -> None:
    rules = dict(re.findall(r"^([a-z]+):(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert "audit" in rules
    assert not [name for name in ("test", "check", "setup") if "audit" in rules[name]]
