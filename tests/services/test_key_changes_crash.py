"""Kill -9 at every statement, commit, signature and key of a rotation and a compromise.

Whoever runs the act again publishes one keyset, with the key and the bytes that were fixed first.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from licensing.verify import KeysetTrust, verify_keyset, verify_keyset_update, verify_license
from portal.db.keys import KeyChange, KeysetVersion
from portal.db.licenses import License
from portal.domain.ports import KeyMaker, NewKey
from portal.gateways.custody import FileCustody
from portal.gateways.signing import SignerDirectory
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Transactions
from portal.services.key_changes import KeyOrder, KeyOutcome, run_order
from portal.services.keys import current_keyset, init_keys, role_signers, unix
from tests.factories.licenses import make_license
from tests.jobs.crash import PASSPHRASE, ROLES, Points, make_worker, transactions
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

COMMAND = Actor("command")


class CrashingMaker:
    """Makes keys, with a point after each: it is on the disk, and nothing knows of it."""

    def __init__(self, maker: KeyMaker, points: Points) -> None:
        self._maker = maker
        self._points = points

    def make(self, role: str) -> NewKey:
        made = self._maker.make(role)
        self._points.reach()
        return made

    def find(self, role: str, uri: str) -> NewKey:
        return self._maker.find(role, uri)


def run(url: str, keys: Path, order: KeyOrder, last: int) -> KeyOutcome:
    """Run an act in this process, up to a point."""
    points = Points(last)
    opened = transactions(url, keys, points)
    maker = CrashingMaker(SignerDirectory(keys, PASSPHRASE, ROLES), points)
    return run_order(opened, maker, order, COMMAND)


def run_until_killed(url: str, keys: Path, order: KeyOrder, point: int) -> bool:
    """Run an act in a child; True when it reached the point and died there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run(url, keys, order, point)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert died or status == 0, "the act failed before it was killed"
    return died


def signer_of(opened: Transactions, role: str) -> str:
    with opened.reading(COMMAND) as context:
        return role_signers(context, role)[0].keyid


@pytest.mark.parametrize("kind", ["rotate-key", "compromise-key"])
def test_a_key_change_killed_at_any_point_goes_on_to_the_same_bytes(
    database_url: str, tmp_path: Path, kind: Any
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    opened = transactions(database_url, keys)
    maker = SignerDirectory(keys, PASSPHRASE, ROLES)
    FileCustody(keys, maker).make_seal()
    with opened.writing(COMMAND) as context:
        init_keys(context, maker)
    publish_bundle(opened, COMMAND)
    deployment_id = make_license(opened, sku="pilot-30d").deployment_id
    while make_worker(opened, keys / "mail").run_once():
        pass
    points = KillPoints(every=9)
    for point in points:
        with opened.reading(COMMAND) as context:
            before = verify_keyset(_newest(context).envelope, unix(context.at))
            licenses = len(context.session.scalars(select(License)).all())
        old = signer_of(opened, "license")
        subject = "license" if kind == "rotate-key" else old
        order = KeyOrder(f"act_{point}", kind, subject, activate_in_s=0)
        # Nothing of this process may be open in the child.
        opened.database.dispose()
        points.died = run_until_killed(database_url, keys, order, point)
        with opened.reading(COMMAND) as context:
            fixed = context.session.get(KeyChange, order.act_id)
            payload = None if fixed is None else fixed.payload
            seen = {each.id: each.envelope for each in context.session.scalars(select(License))}
        with opened.writing(COMMAND) as context:
            context.session.execute(text("UPDATE jobs SET claimed_until = NULL"))
        outcome = run_order(opened, maker, order, COMMAND)
        with opened.reading(COMMAND) as context:
            at, stored = unix(context.at), _newest(context)
            after = verify_keyset_update(stored.envelope, before, at)
            assert after.document.version == before.document.version + 1 == outcome.keyset_version
            assert payload in (None, after.envelope.payload)
            listed = {*after.document.by_keyid} - {*before.document.by_keyid}
            assert listed == {outcome.keyid}
            rows = context.session.scalars(select(License)).all()
            assert len(rows) == licenses + (kind == "compromise-key")
            for row in rows:
                assert seen.get(row.id) in (None, row.envelope)
            (current,) = (
                row
                for row in rows
                if row.deployment_id == deployment_id and row.superseded_by is None
            )
            assert current.envelope is not None
            verify_license(current.envelope, KeysetTrust(current_keyset(context).document), at)
        if kind == "rotate-key":
            retire = KeyOrder(f"act_{point}_r", "retire-key", old, anyway=True, reason="a test")
            run_order(opened, maker, retire, COMMAND)
        while make_worker(opened, keys / "mail").run_once():
            pass
    opened.database.dispose()
    assert points.last > 10, "the points of work were not reached"


def _newest(context: Any) -> KeysetVersion:
    newest: KeysetVersion = context.session.scalars(
        select(KeysetVersion).order_by(KeysetVersion.version.desc()).limit(1)
    ).one()
    return newest
