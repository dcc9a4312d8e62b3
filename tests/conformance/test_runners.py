"""The runners of three languages agree on every vector.

The ones for Node and Go share no code with `licensing`: they were written from the design of the
signed documents, with the standard library alone.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.python_runner import main, outcome, read_vectors

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parents[1] / "licensing" / "vectors"
COUNT = sum(1 for _ in read_vectors(VECTORS))
TIMEOUT_S = 300
"""A first run of Go compiles its standard library."""


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program `{name}` is not installed")
    return path


def _run(arguments: list[str], directory: Path = HERE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def _one_wrong(directory: Path) -> None:
    """Write a vector file whose one expectation is wrong."""
    keyset, test = next(iter(read_vectors(VECTORS)))
    altered: dict[str, Any] = {**test, "tc_id": "one.wrong", "result": "invalid", "code": "expired"}
    group = {"keyset_b64": base64.b64encode(keyset).decode(), "tests": [altered]}
    (directory / "one.json").write_text(json.dumps({"groups": [group]}))


@pytest.mark.parametrize(
    ("keyset", "test"),
    [pytest.param(keyset, test, id=test["tc_id"]) for keyset, test in read_vectors(VECTORS)],
)
def test_licensing_agrees(keyset: bytes, test: dict[str, Any]) -> None:
    assert outcome(keyset, test) == test.get("code", "valid")


def test_python_runner(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(str(VECTORS)) == 0
    assert capsys.readouterr().out == f"python: {COUNT} tests, 0 failed\n"
    _one_wrong(tmp_path)
    assert main(str(tmp_path)) == 1
    assert capsys.readouterr().out.startswith("one.wrong: ")


@pytest.mark.slow
def test_node_runner(tmp_path: Path) -> None:
    command = [_program("node"), str(HERE / "node" / "run.mjs")]
    done = _run([*command, str(VECTORS)])
    assert (done.stdout, done.stderr) == (f"node: {COUNT} tests, 0 failed\n", "")
    assert done.returncode == 0
    _one_wrong(tmp_path)
    failed = _run([*command, str(tmp_path)])
    assert failed.returncode == 1
    assert failed.stdout.startswith("one.wrong: ")


def test_go_runner(tmp_path: Path) -> None:
    built = tmp_path / "conformance"
    made = _run([_program("go"), "build", "-o", str(built), "."], HERE / "go")
    assert made.returncode == 0, made.stderr
    done = _run([str(built), str(VECTORS)])
    assert (done.stdout, done.stderr) == (f"go: {COUNT} tests, 0 failed\n", "")
    assert done.returncode == 0
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    _one_wrong(wrong)
    failed = _run([str(built), str(wrong)])
    assert failed.returncode == 1
    assert failed.stdout.startswith("one.wrong: ")
