"""Whatever the audit trail says is said in words on pages."""

import ast
from pathlib import Path

from portal.web.words import ACTS

SERVICES = Path(__file__).resolve().parents[2] / "portal" / "services"


def recorded() -> set[str]:
    """Return every act that a service records, as it stands in the code."""
    acts = set()
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "record"
            ):
                name = node.args[1]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno} names no act"
                acts.add(str(name.value))
    return acts


def test_each_act_has_words_and_no_words_are_left_over() -> None:
    assert ACTS.keys() == recorded()
