"""Acts: rows of the schema before, of every state, there and back with nothing lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from devtools.postgres import Cluster
from portal.db import migrate
from portal.db.session import make_engine
from tests.databases import fresh_database
from tests.migrations.test_terms import insert, rows

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TERMS = {"sku": "pilot-30d", "mode": "offline", "features": ["routing"], "limits": {}}


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of the schema before, with what a portal wrote then."""
    if request.param == "sqlite":
        opened = make_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
        migrate.upgrade(opened, "0003")
        fill(opened)
        yield opened
        opened.dispose()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with fresh_database(cluster, "template0") as url:
        opened = make_engine(url)
        migrate.upgrade(opened, "0003")
        fill(opened)
        yield opened
        opened.dispose()


def entitlement(number: int, **instants: datetime) -> dict[str, Any]:
    return {
        "id": f"ent_{number}",
        "account_id": "cus_1",
        "deployment_id": "dep_1",
        "terms": TERMS,
        "budget_id": f"bud_{number}",
        "reason": "r",
        "created_at": AT,
        **instants,
    }


def fill(engine: Engine) -> None:
    """Write entitlements of every state, licenses of every state, and holds."""
    insert(engine, "accounts", {"id": "cus_1", "name": "NewCo", "created_at": AT})
    insert(
        engine,
        "deployments",
        {"id": "dep_1", "account_id": "cus_1", "name": "Production", "created_at": AT},
    )
    insert(
        engine,
        "entitlements",
        entitlement(1),
        entitlement(2, approved_at=AT),
        entitlement(3, approved_at=AT, starts_at=AT, ends_at=AT + 30 * DAY),
        {
            **entitlement(4, approved_at=AT, starts_at=AT, ends_at=AT, ended_at=AT),
            "end_reason": "term over",
        },
    )
    whole = {
        "account_id": "cus_1",
        "deployment_id": "dep_1",
        "entitlement_id": "ent_3",
        "sku": "pilot-30d",
        "mode": "offline",
        "created_at": AT,
    }
    insert(
        engine,
        "licenses",
        {
            **whole,
            "id": "lic_1",
            "issue_key": "start:ent_3",
            "revision": 1,
            "payload": b"{}",
            "superseded_by": "lic_2",
            "superseded_at": AT + DAY,
            "released_at": AT,
        },
        {
            **whole,
            "id": "lic_2",
            "issue_key": "again:ent_3",
            "revision": 2,
            "payload": b"{}",
            "released_at": AT,
            "revoked_at": AT + DAY,
        },
        {**whole, "id": "lic_3", "issue_key": "more:ent_3"},
    )
    hold = {"entitlement_id": "ent_3", "cause": "dispute", "reason": "r", "opened_at": AT}
    insert(engine, "holds", {**hold, "id": "hld_1"}, {**hold, "id": "hld_2", "lifted_at": AT})


def test_what_was_there_is_there_after_the_way_up_and_down(engine: Engine) -> None:
    before = rows(engine)
    assert len(before["entitlements"]) == 4
    migrate.upgrade(engine, "0004")
    after = rows(engine)
    for table in ("entitlements", "licenses", "holds"):
        for old, new in zip(before[table], after[table], strict=True):
            assert {name: new[name] for name in old} == old
    assert {row["hurry"] for row in after["licenses"]} == {"none"}
    assert all(row["suspends_line"] for row in after["holds"])
    assert {(row["taken_tokens"], row["place"]) for row in after["entitlements"]} == {(0, 0)}
    migrate.downgrade(engine, "0003")
    assert rows(engine) == before


def test_an_act_has_a_known_state(engine: Engine) -> None:
    migrate.upgrade(engine, "0004")
    act = {
        "id": "act_1",
        "kind": "revoke",
        "subject_id": "lic_1",
        "params": {},
        "reason": "r",
        "state": "dreamed",
        "preview": {},
        "fingerprint": "0",
        "submitted_at": AT,
    }
    with pytest.raises(Exception, match="ck_acts_state_known"):
        insert(engine, "acts", act)
    insert(engine, "acts", {**act, "state": "done"})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM acts")).scalar_one() == 1
