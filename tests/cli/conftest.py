"""Operators: on a fresh machine, and with a portal."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.operators import Operator
from tests.databases import copied_file


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Operator]:
    """An operator on a fresh machine."""
    data_dir = tmp_path / "data"
    environment: dict[str, str | None] = {name: None for name in os.environ if "PORTAL_" in name}
    operator = Operator(data_dir, {**environment, "PORTAL_DATA_DIR": str(data_dir)}, [])
    yield operator
    for wiring in operator.opened:
        wiring.database.dispose()


@pytest.fixture
def operator(nobody: Operator, sqlite_template: Path) -> Operator:
    """An operator who has run `portal init`."""
    nobody.data_dir.mkdir(mode=0o700)
    copied_file(sqlite_template, nobody.data_dir)
    nobody.ask("init")
    return nobody
