"""The whole portal for a browser: `portal init`, `portal serve` and `portal worker` as processes.

It runs on a free port of loopback and keeps its data in a directory of its own. What pages cannot
do yet (staff persons, licenses in rare states) is made through the use cases.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from playwright.sync_api import Page

from devtools.people import current_code, set_up_factor
from portal.config import Settings, load_settings
from portal.services.context import Actor, Transactions
from portal.wiring import wire_command
from tests.cli.programs import BIN, STOP_S, Shell, free_port, make_shell, serving
from tests.factories.accounts import make_staff

COMMAND = Actor("command")
WAIT_S = 30


class WorkerProcess:
    """The `portal worker` of a site, which can be ended and started again."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._log = shell.directory / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [BIN / "portal", "worker"],
                cwd=self._shell.directory,
                env=self._shell.environment,
                stdout=log,
                stderr=log,
            )

    def end(self) -> None:
        """Ask it to end, and wait until it has: it finishes what it has in hand."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def require_running(self) -> None:
        """Fail with its log when it ended by itself."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()


@dataclass(frozen=True)
class Site:
    """A running portal."""

    origin: str
    shell: Shell
    settings: Settings
    transactions: Transactions
    worker: WorkerProcess

    @contextmanager
    def without_worker(self) -> Iterator[None]:
        """End the worker while the block runs, so that what it would do can be seen.

        Merely stopped by a signal, it could keep SQLite's write lock.
        """
        self.worker.end()
        try:
            yield
        finally:
            self.worker.start()

    def make_staff(self, email: str, *roles: str) -> None:
        """Make a staff person who has a second factor."""
        person = make_staff(self.transactions, email, *roles)
        with self.transactions.writing(COMMAND) as context:
            set_up_factor(context, person.id)

    def code_of(self, email: str) -> str:
        """Return what the person's authenticator app shows."""
        return current_code(self.settings, email)

    def open_mail(self, page: Page, to: str, subject: str) -> None:
        """Open the newest mail of this subject in the page, when it has come."""
        end = monotonic() + WAIT_S
        while monotonic() < end:
            self.worker.require_running()
            page.goto(f"{self.origin}/dev/mail?to={to}")
            found = page.get_by_role("link", name=subject)
            if found.count():
                found.first.click()
                return
        raise AssertionError(f"no mail {subject!r} came to {to}")


@contextmanager
def running_site(directory: Path) -> Iterator[Site]:
    """Run a portal while the block runs."""
    port = free_port()
    database_url = f"sqlite:///{directory / 'data' / 'portal.sqlite3'}"
    shell = make_shell(directory, database_url, port)
    shell = replace(shell, environment={**shell.environment, "PORTAL_DEV": "1"})
    shell.portal("init", "--dev")
    settings = load_settings(shell.environment)
    worker = WorkerProcess(shell)
    with serving(shell, port):
        worker.start()
        wiring = wire_command(settings)
        try:
            yield Site(settings.origin, shell, settings, wiring.transactions, worker)
            worker.require_running()
        finally:
            wiring.database.dispose()
            worker.end()
