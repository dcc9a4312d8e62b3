"""`make asvs`: lists the tests that are marked as evidence for each ASVS requirement.

The requirements are the rows of docs/contributing/asvs.md.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ROOT / "docs" / "contributing" / "asvs.md"
_ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (.+) \|$", re.MULTILINE)


def claimed() -> dict[str, str]:
    """Return the requirements on the page, by number."""
    return dict(_ROW.findall(CLAIMS.read_text()))


def marked(tests: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Return the tests marked with each requirement, as `path::name`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for requirement in _requirements(node):
                    found[requirement].append(f"{path.relative_to(ROOT)}::{node.name}")
    return found


def _requirements(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.asvs":
            yield from (str(ast.literal_eval(argument)) for argument in decorator.args)


def _order(requirement: str) -> tuple[int, ...]:
    return tuple(int(part) for part in requirement.split("."))


def main() -> int:
    """Print the table; return 1 if a requirement on the page has no test."""
    claims, tests = claimed(), marked()
    for requirement in sorted(claims.keys() | tests.keys(), key=_order):
        print(f"{requirement:8} {claims.get(requirement, 'not on the page')}")
        for test in tests.get(requirement, ["-- no test"]):
            print(f"         {test}")
    bare = sorted(claims.keys() - tests.keys(), key=_order)
    print(f"\n{len(claims) - len(bare)} of {len(claims)} requirements have a test")
    if bare:
        print(f"without: {', '.join(bare)}")
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
