"""Kill -9 at every statement, commit and signature of issuing: one license, the same bytes."""

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from licensing.verify import KeysetTrust, verify_license
from portal.db.licenses import License
from portal.gateways.custody import FileCustody
from portal.gateways.signing import SignerDirectory
from portal.services.context import Actor
from portal.services.keys import current_keyset, init_keys, unix
from portal.services.licenses import request_issue
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import make_entitlement
from tests.jobs.crash import PASSPHRASE, ROLES, make_worker, run, transactions
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

COMMAND = Actor("command")


def work_until_killed(url: str, keys: Path, point: int) -> bool:
    """Run the worker in a child; True when it reached the point and died there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run(url, keys, point)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.asvs("2.3.3")
def test_a_worker_killed_at_any_point_leaves_one_license_with_the_same_bytes(
    database_url: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    opened = transactions(database_url, keys)
    with opened.writing(COMMAND) as context:
        signers = SignerDirectory(keys, PASSPHRASE, ROLES)
        init_keys(context, signers)
    FileCustody(keys, signers).make_seal()
    make_worker(opened, keys / "mail").run_once()
    points = KillPoints(every=7)
    for licenses, point in enumerate(points, 1):
        account, _ = make_customer(opened, f"jo{point}@newco.example")
        while make_worker(opened, keys / "mail").run_once():
            pass
        deployment = make_deployment(opened, account, f"deployment {point}")
        entitlement = make_entitlement(opened, deployment)
        with opened.writing(COMMAND) as context:
            asked = request_issue(context, entitlement.id, cause="start")
        # Nothing of this process may be open in the child.
        opened.database.dispose()
        points.died = work_until_killed(database_url, keys, point)
        with opened.reading(COMMAND) as context:
            seen = context.session.get_one(License, asked.id)
            payload, envelope = seen.payload, seen.envelope
        with opened.writing(COMMAND) as context:
            # A dead worker's claim runs out by itself; here nobody waits for it.
            context.session.execute(text("UPDATE jobs SET claimed_until = NULL"))
        while make_worker(opened, keys / "mail").run_once():
            pass
        with opened.reading(COMMAND) as context:
            issued = context.session.get_one(License, asked.id)
            assert issued.released_at is not None
            assert issued.envelope is not None
            assert payload in (None, issued.payload)
            assert envelope in (None, issued.envelope)
            trust = KeysetTrust(current_keyset(context).document)
            verify_license(issued.envelope, trust, unix(context.at))
            same = context.session.query(License).filter_by(deployment_id=deployment.id)
            assert same.count() == 1
            assert context.session.query(License).count() == licenses
    opened.database.dispose()
    assert points.last > 20, "the points of work were not reached"
