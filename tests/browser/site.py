"""The whole portal for a browser: `portal init`, `portal serve` and `portal worker` as processes.

It runs on a free port of loopback and keeps its data in a directory of its own. What pages cannot
do yet (staff persons, licenses in rare states) is made through the use cases.
"""

import signal
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


@dataclass(frozen=True)
class Site:
    """A running portal."""

    origin: str
    shell: Shell
    settings: Settings
    transactions: Transactions
    worker: subprocess.Popen[bytes]

    @contextmanager
    def worker_stopped(self) -> Iterator[None]:
        """Hold the worker still while the block runs, so that what it would do can be seen."""
        self.worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.worker.send_signal(signal.SIGCONT)

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
            assert self.worker.poll() is None, "the worker ended; its log says why"
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
    with serving(shell, port), (directory / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [BIN / "portal", "worker"],
            cwd=directory,
            env=shell.environment,
            stdout=log,
            stderr=log,
        )
        wiring = wire_command(settings)
        try:
            yield Site(settings.origin, shell, settings, wiring.transactions, worker)
            assert worker.poll() is None, (directory / "worker.log").read_text()
        finally:
            wiring.database.dispose()
            worker.terminate()
            try:
                worker.wait(STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
