"""The router's surfaces without a guard: every request is admitted, and nothing is counted.

`python -m devtools.router_bench.bare CONFIG` prints its address.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from router.clock import unix_now
from router.config import load_config
from router.documents.decision import Decision
from router.serve.guard import Guard
from router.serve.surfaces import Surfaces


class Unguarded:
    """Permits everything, forever."""

    journal = None
    state = None
    lease_state = None
    next_check_at = 0
    decision = Decision(True, "valid", None, None, 0, features=None)

    def now(self) -> int:
        """Return the wall clock."""
        return unix_now()


def _row(row: str) -> None:
    sys.stdout.write(row + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until killed."""
    config = load_config(Path(sys.argv[1]))
    guard = cast(Guard, cast(Any, Unguarded()))
    surfaces = Surfaces(config, guard, write_row=_row, log=print)
    runner = web.AppRunner(surfaces.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
