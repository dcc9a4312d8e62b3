"""Runs all vectors against any implementation: `python -m devtools.conformance -- PROGRAM ARGS…`.

The program reads one JSON request a line and answers one JSON object a line;
`docs/router-authors/command-line.md` describes them. Exits 1 and names the vector if an answer
differs, or the program dies, hangs or answers nonsense.
"""

import argparse
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "licensing" / "vectors"
SEQUENCES = ROOT / "router" / "vectors" / "sequences.json"
ANSWER_S = 10.0
Object = dict[str, Any]


class Broken(Exception):
    """The program does not give a usable answer."""


@dataclass(frozen=True)
class Failure:
    """A vector with an unexpected result."""

    name: str
    detail: str


class Program:
    """An implementation, running as a process."""

    def __init__(self, command: list[str], answer_s: float) -> None:
        self._answer_s = answer_s
        self._number = 0
        self._held = b""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise Broken(f"cannot run {command[0]}: {error.strerror}") from error

    def ask(self, request: Object) -> Object:
        """Send one request and return its answer.

        Raises:
            Broken: the program died, hangs, or answered something else.
        """
        self._number += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": self._number, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Broken("it ended before the request was sent") from error
        line = self._line()
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise Broken(f"its answer is not JSON: {line[:200]!r}") from error
        if not isinstance(answer, dict) or answer.get("id") != self._number:
            raise Broken(f"it answered another request: {line[:200]!r}")
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._held:
            ready, _, _ = select.select([self._process.stdout], [], [], self._answer_s)
            if not ready:
                raise Broken(f"it did not answer within {self._answer_s:g} s")
            part = self._process.stdout.read(65536)
            if not part:
                raise Broken(f"it ended with status {self._process.wait()}")
            self._held += part
        line, _, self._held = self._held.partition(b"\n")
        return line

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.communicate()


def differs(expected: Any, found: Any, where: str = "") -> str | None:
    """Return where the answer differs, or None; only expected members are compared."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return f"{where or 'answer'} is {found!r}"
        pairs = ((name, expected[name], found.get(name)) for name in expected)
        return next(
            (
                said
                for name, want, have in pairs
                if (said := differs(want, have, f"{where}.{name}" if where else name))
            ),
            None,
        )
    return None if expected == found else f"{where} is {found!r}, not {expected!r}"


def documents() -> Iterator[tuple[str, Object, Object]]:
    """Yield name, request and expected answer of each vector without state."""
    for path in sorted(VECTORS.glob("*.json")):
        value = json.loads(path.read_bytes())
        for group in value.get("groups", []):
            for test in group["tests"]:
                request = {name: test[name] for name in ("now_at", "options", "envelope_b64")}
                expected = {"result": test["result"]}
                if "code" in test:
                    expected["code"] = test["code"]
                yield (
                    test["tc_id"],
                    {"op": "verify", "keyset_b64": group["keyset_b64"], **request},
                    expected,
                )


def run_sequence(program: Program, sequence: Object) -> str | None:
    """Run one stateful vector; return what differs, or None."""
    rest = ("sequence_id", "comment", "steps", "state_before", "state_after", "expect")
    common = {name: value for name, value in sequence.items() if name not in rest}
    if "steps" not in sequence:
        return _compare(program.ask(common), sequence["expect"], "")
    state = sequence["state_before"]
    for number, step in enumerate(sequence["steps"], 1):
        request = {name: value for name, value in step.items() if name != "expect"}
        answer = program.ask({**common, **request, "state": state})
        if said := _compare(answer, step["expect"], f"step {number}: "):
            return said
        state = answer.get("state")
    said = differs(sequence["state_after"], state)
    return None if said is None else f"state after: {said}"


def _compare(answer: Object, expected: Object, where: str) -> str | None:
    if "error" in answer:
        return f"{where}{answer['error']}"
    said = differs(expected, answer)
    return None if said is None else where + said


def run(command: list[str], answer_s: float = ANSWER_S) -> tuple[int, list[Failure]]:
    """Run all vectors; return how many there are, and those that failed.

    Raises:
        Broken: the program cannot be started.
    """
    failures: list[Failure] = []
    count = 0
    program = Program(command, answer_s)
    name = ""
    try:
        for name, request, expected in documents():
            count += 1
            if said := _compare(program.ask(request), expected, ""):
                failures.append(Failure(name, said))
        for sequence in json.loads(SEQUENCES.read_bytes())["sequences"]:
            count += 1
            name = sequence["sequence_id"]
            if said := run_sequence(program, sequence):
                failures.append(Failure(name, said))
    except Broken as error:
        failures.append(Failure(name, f"the program stopped here: {error}"))
    finally:
        program.close()
    return count, failures


def main() -> int:
    """Run all vectors and report."""
    parser = argparse.ArgumentParser(prog="python -m devtools.conformance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--answer-s", type=float, default=ANSWER_S, help="seconds to wait for an answer"
    )
    parser.add_argument("program", nargs="+", metavar="PROGRAM", help="after --")
    options = parser.parse_args()
    try:
        count, failures = run(options.program, options.answer_s)
    except Broken as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        shown = [{"name": each.name, "detail": each.detail} for each in failures]
        print(json.dumps({"vectors": count, "failed": shown}))
    else:
        for each in failures:
            print(f"{each.name}: {each.detail}")
        print(f"{count} vectors, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
