"""Unsigned quota state is imported once, whole, and only where the operator says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.errors import UsageError
from router.state.legacy import FLAG, migration_allowed, read_legacy
from router.state.store import StateFile, StateInvalid
from tests.router.papers import AT, identifier

BUDGET = identifier("bud", 1)


def unsigned(**changes: Any) -> bytes:
    """Return a legacy state."""
    value = {"version": 1, "quota": {BUDGET: {"used": 42}}, "last_seen_at": AT}
    return json.dumps({**value, **changes}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is."""
    return tmp_path / "license-state.json"


def test_the_flag() -> None:
    assert migration_allowed({FLAG: "1"})
    assert not any(migration_allowed(each) for each in ({}, {FLAG: ""}, {FLAG: "0"}))
    with pytest.raises(UsageError, match=FLAG):
        migration_allowed({FLAG: "yes"})


def test_a_legacy_state_is_imported_once(path: Path) -> None:
    path.write_bytes(unsigned())
    with StateFile(path) as file:
        state = file.open(migrate=True)
    tally = state.budgets.tallies[BUDGET]
    assert (tally.used, tally.limit, tally.saw_serving) == (42, 0, False)
    assert state.time.wall_floor == AT
    assert "hmac" in json.loads(path.read_bytes())
    with StateFile(path) as file, pytest.raises(StateInvalid, match="without the flag"):
        file.open(migrate=True)
    with StateFile(path) as file:
        assert file.open() == state


def test_an_unsigned_state_needs_the_flag(path: Path) -> None:
    path.write_bytes(unsigned())
    with StateFile(path) as file, pytest.raises(StateInvalid, match=f"{FLAG}=1") as refused:
        file.open()
    assert refused.value.code == "license-state-invalid"
    assert path.read_bytes() == unsigned()


def test_the_flag_without_anything_to_import_is_refused(path: Path) -> None:
    with StateFile(path) as file, pytest.raises(StateInvalid, match="no unsigned state"):
        file.open(migrate=True)


def test_an_unsigned_state_beside_a_key_is_altered_state(path: Path) -> None:
    with StateFile(path) as file:
        file.open()
    path.write_bytes(unsigned())
    with StateFile(path) as file, pytest.raises(StateInvalid, match="not a signed state"):
        file.open(migrate=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        unsigned(version=2),
        unsigned(quota={"caller-1": {"used": 1}}),
        unsigned(quota={BUDGET: {"used": -1}}),
        unsigned(quota={BUDGET: {"used": 1, "more": 2}}),
        unsigned(more=1),
    ],
)
def test_another_form_is_refused_whole(path: Path, data: bytes) -> None:
    assert read_legacy(data) is None
    path.write_bytes(data)
    with StateFile(path) as file, pytest.raises(StateInvalid, match="without its key"):
        file.open(migrate=True)
    assert path.read_bytes() == data
