"""Reading the decision costs a request nothing but a look at the clock."""

import asyncio
import sys
from pathlib import Path

from router.config import parse_config
from router.serve.guard import Guard
from tests.router.papers import AT, Vendor
from tests.router.site import Ticks

CONFIG = b"""
server:
  listen: 127.0.0.1:8080
  license: {path: license.json, state_path: state/license-state.json}
"""
_watching: list[str] = []
_on = [False]


def _watch(event: str, _: object) -> None:
    if _on[0]:
        _watching.append(event)


sys.addaudithook(_watch)


def test_a_decision_is_read_without_io_and_without_waiting(tmp_path: Path) -> None:
    vendor = Vendor()
    (tmp_path / "license.json").write_bytes(vendor.license())
    (tmp_path / "keyset.json").write_bytes(vendor.keyset())

    async def serve() -> None:
        guard = Guard(
            parse_config(CONFIG, tmp_path),
            tmp_path / "keyset.json",
            clock=Ticks(time=AT),
            log=lambda _: None,
        )
        await guard.check()
        # A check under way holds nobody up: what was published stands until it is replaced whole.
        checking = asyncio.create_task(guard.check())
        await asyncio.sleep(0)
        assert not checking.done()
        _on[0] = True
        try:
            first = guard.decision
            assert all(guard.decision is first for _ in range(1000))
        finally:
            _on[0] = False
        assert guard.decision.serving
        await checking
        await guard.close()

    asyncio.run(serve())
    assert _watching == [], "no file, no socket, no process"
