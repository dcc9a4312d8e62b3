"""Running the router: configuration, guard and surfaces in one process.

Invariants: usage rows go to standard output, one JSON object a line; messages go to standard error.
The process ends when its guard does: nothing is served on a decision nobody keeps current. On
SIGTERM or SIGINT running requests finish and the journal is folded into the state.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from router.clock import unix_now
from router.config import Config, load_config
from router.errors import OK, RouterError, UsageError
from router.guard import LEASES_NOT_HELD, Guard, wake_on_hangup
from router.legacy import migration_allowed
from router.report import say
from router.surfaces import Surfaces

KEYSET_VARIABLE: Final = "SMART_LLMROUTER_KEYSET"
RELEASE_KEYSET: Final = Path(__file__).parent / "trust" / "keyset.json"
FINISH_S: Final = 30.0
"""How long running requests may take to finish at the end."""


class LeaseModeRefused(RouterError):
    """The license asks for leases."""

    code = "license-lease-required"


def is_release() -> bool:
    """Say whether this is a release: one carries its keyset inside."""
    return RELEASE_KEYSET.is_file()


def serve(config_path: Path, keyset: str | None) -> int:
    """Run until told to stop.

    Raises:
        ConfigError, UsageError: it cannot start like this.
        RouterError: the state is in use, the address is taken, or the license asks for leases.
    """
    config = load_config(config_path, release=is_release())
    if not keyset:
        raise UsageError(f"name the keyset with --keyset FILE or {KEYSET_VARIABLE}")
    migrate = migration_allowed(os.environ)
    asyncio.run(run(config, Path(keyset), clock=unix_now, migrate=migrate))
    return OK


async def run(
    config: Config, keyset: Path, *, clock: Callable[[], int], migrate: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        RouterError: it cannot start.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    guard = Guard(config, keyset, clock=clock, log=say, migrate=migrate)
    try:
        decision = await guard.check()
        if decision.facts.get("mode") == "lease" and not decision.serving:
            raise LeaseModeRefused(LEASES_NOT_HELD)
        surfaces = Surfaces(config, guard, clock=clock, write_row=_write_row, log=say)
        runner = web.AppRunner(
            surfaces.application(), access_log=None, shutdown_timeout=FINISH_S, handle_signals=False
        )
        await runner.setup()
        try:
            await _listen(runner, config)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
            wake_on_hangup(guard, loop)
            await _until(stopped, guard)
        finally:
            await runner.cleanup()
    finally:
        await guard.close()


async def _listen(runner: web.AppRunner, config: Config) -> None:
    host, port = config.server.host, config.server.port
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise RouterError(
            f"cannot listen on {host}:{port}: {error.strerror}; change server.listen", code="io"
        ) from error
    for address in runner.addresses:
        bound, number = address[0], address[1]
        shown = f"[{bound}]" if ":" in bound else bound
        say(f"listening on http://{shown}:{number}")


async def _until(stopped: asyncio.Event, guard: Guard) -> None:
    """Wait for the end; a guard that fails is the end."""
    watching = asyncio.create_task(guard.run())
    waiting = asyncio.create_task(stopped.wait())
    try:
        done, _ = await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if watching in done:
            watching.result()
    finally:
        for task in (watching, waiting):
            task.cancel()
        await asyncio.gather(watching, waiting, return_exceptions=True)


def _write_row(row: str) -> None:
    sys.stdout.write(row + "\n")
    sys.stdout.flush()
