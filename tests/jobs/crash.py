"""A worker that kills itself with SIGKILL at the Nth point of its work.

Run as a program by the crash test: `python -m tests.jobs.crash URL KEYS_DIR POINT`. Points are each
SQL statement (before it runs), each commit (before and after), and each signature.
"""

import os
import signal
import sys
from pathlib import Path

from sqlalchemy import Engine, event

from portal.db.session import Database, make_engine
from portal.domain.ports import Signer
from portal.gateways.custody import FileCustody
from portal.gateways.mail import DirectoryMailer
from portal.gateways.passwords import Argon2Passwords
from portal.gateways.rate_limits import DatabaseRateLimiter
from portal.gateways.secret_box import AesGcmBox
from portal.gateways.signing import SignerDirectory
from portal.gateways.system import SystemClock, SystemRandomness
from portal.jobs.handlers import Handlers
from portal.jobs.worker import Worker
from portal.services.context import Policy, Ports, Transactions
from tests.applications import ORIGIN, mail_templates

PASSPHRASE = b"a passphrase that tests alone may use"
DATA_KEY = b"a data key that tests alone may use!"
ROLES = ("root", "license", "lease", "revocation", "seal")


class Points:
    """Counts the points of work, and dies at the chosen one."""

    def __init__(self, last: int) -> None:
        self.left = last

    def reach(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", lambda *_: self.reach())
        event.listen(engine, "commit", lambda *_: self.reach())


class CrashingSigners:
    """The real signers, with a point before and after each signature."""

    def __init__(self, signers: SignerDirectory, points: Points) -> None:
        self._signers = signers
        self._points = points

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        self._points.reach()
        return self._signers.signer(role, uri, keyid)


def transactions(url: str, keys: Path, points: Points | None = None) -> Transactions:
    """Open units of work with the real gateways, and points where they are wanted."""
    database = Database(make_engine(url))
    randomness = SystemRandomness()
    signers = SignerDirectory(keys, PASSPHRASE, ROLES)
    if points is not None:
        points.watch(database.engine)
    ports = Ports(
        clock=SystemClock(),
        randomness=randomness,
        passwords=Argon2Passwords(memory_kib=8, passes=1),
        secrets=AesGcmBox(DATA_KEY, randomness),
        signers=signers if points is None else CrashingSigners(signers, points),
        custody=FileCustody(keys, signers),
        limiter=DatabaseRateLimiter(database),
    )
    return Transactions(database, ports, Policy(origin=ORIGIN))


def make_worker(opened: Transactions, mail: Path) -> Worker:
    """Make the real worker without what recurs, so that its points are the same in each run."""
    mailer = DirectoryMailer(mail, "licenses@localhost", SystemClock(), SystemRandomness())
    handlers = Handlers(opened, mail_templates(), mailer)
    return Worker(opened, handlers.by_kind(), [], f"worker {os.getpid()}")


def main() -> None:
    """Work until the point is reached, or until nothing is left to do."""
    url, keys, point = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    run(url, keys, point)


def run(url: str, keys: Path, point: int) -> None:
    """Work in this process."""
    opened = transactions(url, keys, Points(point))
    worker = make_worker(opened, keys / "mail")
    while worker.run_once():
        pass


if __name__ == "__main__":
    main()
