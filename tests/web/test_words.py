"""Every act that is recorded has words for pages."""

import ast
from pathlib import Path

from portal.web.words import ACTS, act_name

SERVICES = Path(__file__).resolve().parents[2] / "portal" / "services"
WRITERS = {"record", "_record"}


def named_in_services() -> set[str]:
    """Return every text that services name: some write acts through helpers and constants."""
    return {
        str(node.value)
        for path in SERVICES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def acts_recorded() -> set[str]:
    """Return the acts that services name when they write the audit trail."""
    found = set()
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in WRITERS
            ):
                found |= {
                    each.value
                    for argument in node.args[1:2]
                    for each in ast.walk(argument)
                    if isinstance(each, ast.Constant) and "." in str(each.value)
                }
    return {str(each) for each in found}


def test_every_act_has_words() -> None:
    recorded = acts_recorded()
    assert len(recorded) > 30
    assert recorded <= ACTS.keys()
    assert ACTS.keys() <= named_in_services(), "words for what is never recorded"


def test_an_act_of_another_time_is_still_read() -> None:
    assert act_name("license.issued") == "License issued"
    assert act_name("thing.long-gone") == "thing.long-gone"
