"""`router-license serve`: configuration, guard, surfaces and renewal in one process.

Invariants: usage rows go to standard output, one JSON object per line; messages go to standard
error. The process ends when its guard does: nothing is served on a decision that is not kept
current. On SIGTERM or SIGINT, running requests finish and the journal is folded into the state.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from router.clock import Clock, SystemClock, unix_now
from router.commands.options import CODE_VARIABLE, keyset_paths, read_keyset
from router.commands.report import say
from router.config import Config, load_config
from router.documents.trust import is_distribution
from router.errors import OK, RouterError
from router.serve.guard import Guard
from router.serve.surfaces import Surfaces
from router.state.legacy import migration_allowed

if TYPE_CHECKING:
    from router.network.renewal import Renewal

FINISH_S: Final = 30.0
"""How long running requests may take to finish once the router is stopping."""


def run_serve(options: argparse.Namespace) -> int:
    """Run the router until it is told to stop.

    Raises:
        ConfigError, UsageError: the configuration or the call is wrong.
        LicensingError: the roots of this distribution did not sign the named keyset.
        RouterError: the state is in use, the address is taken, or a file cannot be read.
    """
    config = load_config(options.config, distribution=is_distribution())
    base, offered = keyset_paths(options)
    if offered is not None:
        read_keyset(offered, unix_now())
    migrate = migration_allowed(os.environ)
    code = os.environ.pop(CODE_VARIABLE, "").strip() or None
    asyncio.run(run(config, base, offered=offered, clock=SystemClock(), migrate=migrate, code=code))
    return OK


async def run(
    config: Config,
    keyset: Path,
    *,
    offered: Path | None = None,
    clock: Clock,
    migrate: bool = False,
    code: str | None = None,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Serve until SIGTERM or SIGINT.

    `wait` waits between two checks of the files.

    Raises:
        RouterError: it cannot start.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    guard = Guard(config, keyset, offered=offered, clock=clock, log=say, migrate=migrate, wait=wait)
    try:
        await guard.check()
        surfaces = Surfaces(config, guard, write_row=_Rows().write, log=say)
        runner = web.AppRunner(
            surfaces.application(), access_log=None, shutdown_timeout=FINISH_S, handle_signals=False
        )
        await runner.setup()
        try:
            leasing = Leasing(config, guard, keyset, clock=clock, code=code)
            loop.add_signal_handler(signal.SIGHUP, leasing.wake)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
            await _listen(runner, config)
            await _until(stopped, guard.run(), leasing.run())
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


class Leasing:
    """Starts renewing once the license is in lease mode.

    Until then, and so always offline, nothing that could reach a network is imported.
    """

    def __init__(
        self, config: Config, guard: Guard, keyset: Path, *, clock: Clock, code: str | None
    ) -> None:
        self._config = config
        self._guard = guard
        self._keyset = keyset
        self._clock = clock
        self._code = code
        self._renewal: Renewal | None = None

    def wake(self) -> None:
        """Check now and, in lease mode, renew now."""
        self._guard.wake()
        if self._renewal is not None:
            self._renewal.wake()

    async def run(self) -> None:
        """Wait for a license in lease mode, then renew until cancelled."""
        await self._guard.works_by_lease.wait()
        from router.network.fetch import HttpFetch  # noqa: PLC0415 -- never loaded offline
        from router.network.renewal import Renewal  # noqa: PLC0415 -- never loaded offline

        lease = self._config.server.license.lease
        self._renewal = Renewal(
            self._guard,
            clock=self._clock,
            log=say,
            connect=lambda origin: HttpFetch(lease.url or origin, lease.ca_file),
            code=self._code,
            keyset=self._keyset,
        )
        await self._renewal.run()


async def _until(stopped: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Wait until stopped, or until one of the tasks ends or fails."""
    tasks = [asyncio.create_task(work) for work in (stopped.wait(), *works)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Rows:
    """Writes usage rows to standard output; if that fails, requests go on."""

    def __init__(self) -> None:
        self._failed = False

    def write(self, row: str) -> None:
        try:
            sys.stdout.write(row + "\n")
            sys.stdout.flush()
        except OSError as error:
            if not self._failed:
                say(f"warning: usage rows are lost: {error.strerror}")
            self._failed = True
        else:
            self._failed = False
