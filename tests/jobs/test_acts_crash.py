"""Kill -9 at every statement, commit and signature of an act: done once or not at all."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from licensing.verify import KeysetTrust, verify_license
from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.licenses import License, licenses_of
from portal.gateways.custody import FileCustody
from portal.gateways.signing import SignerDirectory
from portal.services.acts.kinds import Ask
from portal.services.acts.machinery import kind_of, submit
from portal.services.bundles import publish_bundle, wanted_entries
from portal.services.context import Actor, Transactions
from portal.services.keys import current_keyset, init_keys, unix
from portal.services.licenses import issue_pending, standing
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.factories.licenses import issue, make_budgeted_pilot
from tests.jobs.crash import PASSPHRASE, ROLES, Points, make_worker, transactions
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

COMMAND = Actor("command")
ACTS: dict[str, dict[str, Any]] = {
    "renew": {},
    "top-up": {"sku": "credit-pack-5m"},
    "replace": {"fingerprints": ("fp_12345678",)},
    "revoke": {},
}


@dataclass(frozen=True)
class Stage:
    """A license, and who acts on it."""

    license: License
    staff: str
    name: str

    def act(self, opened: Transactions) -> None:
        """Do the act as the command does: at once, with signature and bundle."""
        kind = kind_of(self.name)
        ask = Ask(
            subject_id=self.license.id,
            params=kind.params(**ACTS[self.name]),
            reason="a test",
            by=self.staff,
        )
        with opened.writing(COMMAND) as context:
            submit(context, kind, ask)
        issue_pending(opened, self.license.deployment_id, COMMAND)
        publish_bundle(opened, COMMAND, only_if_due=True)

    def acts_done(self, opened: Transactions) -> int:
        """Count how often it was done."""
        with opened.reading(COMMAND) as context:
            done = select(func.count()).where(
                AuditRow.action == "act.done",
                AuditRow.detail["on"].as_string() == self.license.id,
            )
            return context.session.scalar(done) or 0

    def files(self, opened: Transactions) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Return payload and envelope of each license of the line."""
        with opened.reading(COMMAND) as context:
            rows = licenses_of(context.session, self.license.deployment_id)
            return {row.id: (row.payload, row.envelope) for row in rows}

    def entitlements(self, opened: Transactions) -> list[tuple[Any, ...]]:
        """Return what the line lives from."""
        with opened.reading(COMMAND) as context:
            rows = context.session.scalars(
                select(Entitlement)
                .where(Entitlement.deployment_id == self.license.deployment_id)
                .order_by(Entitlement.id)
            )
            return [(row.id, row.terms, row.state) for row in rows]


def until_killed(url: str, keys: Path, point: int, work: Callable[[Transactions], None]) -> bool:
    """Work in a child; True when it reached the point and died there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work(transactions(url, keys, Points(point)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def finish(opened: Transactions, keys: Path) -> None:
    """Let a worker do all that is left."""
    with opened.writing(COMMAND) as context:
        # A dead worker's claim runs out by itself; here nobody waits for it.
        context.session.execute(text("UPDATE jobs SET claimed_until = NULL"))
    worker = make_worker(opened, keys / "mail")
    while worker.run_once():
        pass
    publish_bundle(opened, COMMAND, only_if_due=True)


@pytest.mark.parametrize("name", ACTS)
def test_an_act_killed_at_any_point_is_done_once_with_the_same_bytes(
    database_url: str, tmp_path: Path, name: str
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    opened = transactions(database_url, keys)
    signers = SignerDirectory(keys, PASSPHRASE, ROLES)
    FileCustody(keys, signers).make_seal()
    with opened.writing(COMMAND) as context:
        init_keys(context, signers)
    points = KillPoints(every=9)
    for point in points:
        # Another person each time: nobody revokes ten in a day alone.
        staff = make_staff(opened, f"ann{point}@vendor.test").id
        account, _ = make_customer(opened, f"jo{point}@newco.example")
        deployment = make_deployment(opened, account, "Production")
        stage = Stage(issue(opened, make_budgeted_pilot(opened, deployment)), staff, name)
        before = (stage.files(opened), stage.entitlements(opened))
        # Nothing of this process may be open in the child.
        opened.database.dispose()
        points.died = until_killed(database_url, keys, point, stage.act)
        if stage.acts_done(opened) == 0:
            assert (stage.files(opened), stage.entitlements(opened)) == before
            stage.act(opened)
        seen = stage.files(opened)
        finish(opened, keys)
        check(opened, stage, seen)
    opened.database.dispose()
    assert points.last > 20, "the points of work were not reached"


def check(
    opened: Transactions, stage: Stage, seen: dict[str, tuple[bytes | None, bytes | None]]
) -> None:
    """Require that the act was done once, and that no byte changed that was stored."""
    assert stage.acts_done(opened) == 1
    files = stage.files(opened)
    for license_id, (payload, envelope) in seen.items():
        assert payload in (None, files[license_id][0])
        assert envelope in (None, files[license_id][1])
    with opened.reading(COMMAND) as context:
        old = context.session.get_one(License, stage.license.id)
        entries = {each.license_id: each.status for each in wanted_entries(context)}
        if stage.name == "revoke":
            assert standing(context, old).state == "revoked"
            assert entries[old.id] == "revoked"
            assert len(files) == 1
            return
        (new,) = [row for row in licenses_of(context.session, old.deployment_id) if row != old]
        assert old.superseded_by == new.id
        assert entries[old.id] == "superseded"
        assert new.envelope is not None
        trust = KeysetTrust(current_keyset(context).document)
        verify_license(new.envelope, trust, unix(context.at))
