"""Terms as one JSON value: rows of every state there and back, and what they mean in between."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, text
from sqlalchemy.orm import Session

from devtools.postgres import Cluster
from licensing.license import Binding, Budget, Limits, RevocationTerms
from licensing.license import License as LicensePayload
from licensing.names import PRODUCT
from portal.db import migrate
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.db.requests import Request
from portal.db.session import make_engine
from portal.domain.standing import standing_of
from portal.domain.terms import Mode, Terms
from tests.databases import fresh_database

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FP = "sha256:4f6a9c3e1d27"
PEOPLE = {"jo": "customer", "ann": "staff"}


def id_(prefix: str, number: int) -> str:
    return f"{prefix}_{number:026d}"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of the first schema."""
    if request.param == "sqlite":
        opened = make_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
        migrate.upgrade(opened, "0001")
        yield opened
        opened.dispose()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with fresh_database(cluster, "template0") as url:
        opened = make_engine(url)
        migrate.upgrade(opened, "0001")
        yield opened
        opened.dispose()


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return every row there is, by table, in the order of the primary keys."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: [
                dict(row._mapping)
                for row in connection.execute(table.select().order_by(*table.primary_key.columns))
            ]
            for table in metadata.sorted_tables
            if table.name != "alembic_version"
        }


def insert(engine: Engine, table: str, *values: dict[str, Any]) -> None:
    """Insert rows of the first schema; what is left out is null."""
    metadata = MetaData()
    metadata.reflect(engine, only=lambda name, _: name == table, resolve_fks=False)
    known = metadata.tables[table]
    naive = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        for each in values:
            row = {
                name: value.replace(tzinfo=None) if naive and isinstance(value, datetime) else value
                for name, value in each.items()
            }
            connection.execute(known.insert().values(row))


def asked(**more: Any) -> dict[str, Any]:
    return {
        "purpose": "Support desk",
        "features": ["routing", "usage_reporting"],
        "mode": "offline",
        "fingerprint": None,
        **more,
    }


PILOT = asked(
    goals="Half the cost",
    starts_on="2026-12-01",
    volume_tokens=2_000_000,
    contacts="",
    days=30,
    max_instances=3,
)
GRANTED = {
    "mode": "lease",
    "days": 14,
    "volume_tokens": 1_000_000,
    "max_instances": 5,
    "features": ["routing", "usage_reporting"],
    "fingerprint": FP,
}
POLICY = {
    "mode": "offline",
    "days": 3,
    "volume_tokens": None,
    "max_instances": 1,
    "features": ["routing", "usage_reporting"],
    "fingerprint": None,
}


def request(number: int, kind: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id_("rqs", number),
        "kind": kind,
        "state": state,
        "account_id": id_("cus", 1),
        "deployment_id": id_("dep", 1),
        "person_id": "jo",
        "registrable_domain": "newco.example",
        "asked": PILOT if kind == "pilot" else asked(),
        "policy": {"granted": False, "reasons": ["Staff decide on every pilot."]},
        "created_at": AT,
        "promised_at": AT + DAY,
        **more,
    }


def entitlement(number: int, state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id_("ent", number),
        "account_id": id_("cus", 1),
        "deployment_id": id_("dep", 1),
        "source": "pilot",
        "sku": "pilot-30d",
        "state": state,
        "mode": "lease",
        "term_s": 14 * 86400,
        "features": ["routing", "usage_reporting"],
        "limits": {"tokens_per_window": 1_000_000, "window_s": 604800, "max_instances": 5},
        "fingerprints": [FP],
        "reason": "approved as asked",
        "created_at": AT,
        **more,
    }


def payload(number: int, **more: Any) -> LicensePayload:
    at = int(AT.timestamp())
    return LicensePayload(
        typ=LicensePayload.TYP,
        iss="metrum.ai",
        product=PRODUCT,
        issued_at=at,
        license_id=id_("lic", number),
        deployment_id=id_("dep", 1),
        revision=number,
        customer_id=id_("cus", 1),
        sku="credit-pack-5m",
        mode="offline",
        not_before_at=at,
        expires_at=at + 365 * 86400,
        features=("routing",),
        limits=Limits(max_instances=1),
        binding=Binding(fingerprints=(FP,)),
        revocation=RevocationTerms(require_current_bundle=False, min_version=0),
        min_keyset_version=0,
        **more,
    )


def license_(number: int, state: str, document: LicensePayload | None, **more: Any) -> Any:
    row = {
        "id": id_("lic", number),
        "account_id": id_("cus", 1),
        "deployment_id": id_("dep", 1),
        "entitlement_id": id_("ent", 3),
        "issue_key": f"cause {number}",
        "state": state,
        "sku": "credit-pack-5m",
        "mode": "offline",
        "created_at": AT,
    }
    if document is not None:
        row |= {
            "revision": document.revision,
            "supersedes": document.supersedes,
            "features": ["routing"],
            "limits": {"max_instances": 1},
            "fingerprints": [FP],
            "payload": document.to_bytes(),
            "payload_sha256": f"{number}" * 64,
            "key_id": "a" * 64,
            "issued_at": AT,
            "not_before_at": AT,
            "expires_at": AT + timedelta(days=365),
        }
        if document.budget is not None:
            row |= {"budget_id": id_("bud", 1), "tokens_total": 5_000_000}
    if state != "issuing":
        row |= {"envelope": b"{}", "file_sha256": f"{number}" * 64, "released_at": AT}
    return {**row, **more}


def fill(engine: Engine) -> None:
    """Fill the first schema with rows of every kind and state."""
    account = {"account_id": id_("cus", 1)}
    insert(engine, "accounts", {"id": id_("cus", 1), "name": "NewCo", "created_at": AT})
    insert(
        engine,
        "people",
        *(
            {"id": name, "kind": kind, "email": f"{name}@x.test", "name": name, "created_at": AT}
            for name, kind in PEOPLE.items()
        ),
    )
    insert(
        engine, "deployments", {"id": id_("dep", 1), **account, "name": "Berlin", "created_at": AT}
    )
    decided = {"decided_at": AT, "decided_by": "ann", "decision_note": "Because."}
    insert(
        engine,
        "requests",
        request(1, "evaluation", "open", asked=asked(fingerprint=FP, mode="lease")),
        request(
            2,
            "evaluation",
            "approved",
            granted=POLICY,
            decided_at=AT,
            policy={"granted": True, "reasons": []},
        ),
        request(3, "pilot", "open", taken_by="ann", asked={**PILOT, "starts_on": None}),
        request(4, "pilot", "approved", granted=GRANTED, **decided),
        request(5, "pilot", "declined", **decided),
        request(6, "pilot", "withdrawn", decided_at=AT),
        request(7, "renewal", "open"),
        request(8, "replacement", "open"),
    )
    insert(
        engine,
        "request_messages",
        {
            "id": "m",
            "request_id": id_("rqs", 3),
            "author_id": "ann",
            "audience": "staff",
            "text": "Hm.",
            "created_at": AT,
        },
    )
    insert(
        engine,
        "entitlements",
        entitlement(1, "proposed", created_by="ann", support_tier="gold"),
        entitlement(
            2,
            "approved",
            request_id=id_("rqs", 4),
            approved_at=AT,
            approved_by="ann",
            start_by_at=AT + 30 * DAY,
        ),
        entitlement(
            3,
            "live",
            sku="credit-pack-5m",
            source="order",
            mode="offline",
            term_s=None,
            tokens_total=5_000_000,
            budget_id=id_("bud", 1),
            limits={"max_instances": 1},
            fingerprints=[],
            approved_at=AT,
            start_by_at=AT + 30 * DAY,
            starts_at=AT,
        ),
        entitlement(
            4,
            "ended",
            request_id=id_("rqs", 2),
            sku="eval-72h",
            source="evaluation",
            mode="offline",
            term_s=3 * 86400,
            tokens_total=1_000_000,
            budget_id=id_("bud", 2),
            limits={"max_instances": 1, "max_concurrency": 4},
            fingerprints=[],
            approved_at=AT,
            start_by_at=AT + 30 * DAY,
            starts_at=AT,
            ends_at=AT + 3 * DAY,
            ended_at=AT + 3 * DAY,
            end_reason="term over",
        ),
        entitlement(5, "ended", approved_at=AT, start_by_at=AT, ended_at=AT, end_reason="x"),
        entitlement(6, "ended", ended_at=AT, end_reason="never approved"),
    )
    budget = Budget(budget_id=id_("bud", 1), tokens_total=5_000_000)
    insert(
        engine,
        "licenses",
        license_(
            1,
            "superseded",
            payload(1, budget=budget),
            superseded_at=AT + DAY,
            superseded_by=id_("lic", 2),
        ),
        license_(
            2,
            "issued",
            payload(2, budget=budget, supersedes=id_("lic", 1)),
            superseded_at=AT + timedelta(days=36500),
            superseded_by=id_("lic", 3),
            installed_marked_at=AT,
        ),
        license_(3, "issued", payload(3, supersedes=id_("lic", 2))),
        license_(4, "revoked", payload(4, supersedes=id_("lic", 3)), revoked_at=AT + DAY),
        license_(5, "issuing", payload(5, supersedes=id_("lic", 4))),
        license_(6, "issuing", None),
    )
    insert(
        engine,
        "holds",
        {
            "id": "h1",
            "entitlement_id": id_("ent", 1),
            "cause": "staff",
            "reason": "x",
            "opened_at": AT,
            "opened_by": "ann",
        },
        {
            "id": "h2",
            "entitlement_id": id_("ent", 3),
            "cause": "past-due",
            "reason": "x",
            "opened_at": AT,
            "lifted_at": AT + DAY,
            "lifted_by": "ann",
        },
    )
    insert(
        engine,
        "terms_acceptances",
        {
            "id": "t1",
            "person_id": "jo",
            "version": "2026-11-01",
            "occasion": "sign-up",
            "accepted_at": AT,
        },
        {
            "id": "t2",
            "person_id": "jo",
            **account,
            "version": "2026-11-01",
            "occasion": "request",
            "subject_id": id_("rqs", 1),
            "accepted_at": AT,
        },
    )


def test_rows_of_every_state_come_back_as_they_were(engine: Engine) -> None:
    fill(engine)
    before = rows(engine)
    migrate.upgrade(engine, "0002")
    between = rows(engine)
    migrate.downgrade(engine, "0001")
    # Its instant says that it is superseded; the word was never written.
    assert before["licenses"][0]["state"] == "superseded"
    before["licenses"][0]["state"] = "issued"
    assert rows(engine) == before
    counted = {name: len(found) for name, found in before.items()}
    counted["terms_of_use_acceptances"] = counted.pop("terms_acceptances")
    assert {name: len(found) for name, found in between.items()} == counted
    migrate.upgrade(engine, "0002")
    assert rows(engine) == between


def test_rows_mean_the_same_afterwards(engine: Engine) -> None:
    fill(engine)
    migrate.upgrade(engine)
    with Session(engine) as session:
        asked_for = {row.id: row for row in session.query(Request)}
        entitled = {row.id: row for row in session.query(Entitlement)}
        issued = {row.id: row for row in session.query(License)}
        evaluation = asked_for[id_("rqs", 1)]
        assert evaluation.asked == Terms(
            sku="eval-72h",
            mode=Mode.LEASE,
            term_s=3 * 86400,
            features=("routing", "usage_reporting"),
            limits=Limits(max_instances=1, max_concurrency=4),
            tokens_total=1_000_000,
            fingerprints=(FP,),
        )
        pilot = asked_for[id_("rqs", 4)]
        assert pilot.asked.limits == Limits(
            tokens_per_window=2_000_000, window_s=604800, max_instances=3
        )
        assert (pilot.background.goals, pilot.background.starts_on) == (
            "Half the cost",
            date(2026, 12, 1),
        )
        assert pilot.background.expected_tokens == 2_000_000
        assert pilot.granted == entitled[id_("ent", 2)].terms
        assert asked_for[id_("rqs", 2)].granted == entitled[id_("ent", 4)].terms
        assert asked_for[id_("rqs", 3)].granted is None
        assert [row.state for _, row in sorted(entitled.items())] == [
            "proposed",
            "approved",
            "live",
            "ended",
            "ended",
            "ended",
        ]
        assert entitled[id_("ent", 1)].terms.support_tier == "gold"
        assert entitled[id_("ent", 3)].terms.term_s is None
        states = {
            row.document.revision if row.document else None: standing_of(
                row.facts(is_held=False), AT + 2 * DAY
            ).state
            for row in issued.values()
        }
        assert states == {
            1: "superseded",
            2: "issued",
            3: "issued",
            4: "revoked",
            5: "issuing",
            None: "issuing",
        }


def test_states_without_their_instants_get_them(engine: Engine) -> None:
    fill(engine)
    bare = [
        "UPDATE licenses SET revoked_at = NULL WHERE state = 'revoked'",
        "UPDATE licenses SET superseded_at = NULL WHERE state = 'superseded'",
        "UPDATE entitlements SET approved_at = NULL WHERE state = 'approved'",
        "UPDATE entitlements SET starts_at = NULL WHERE state = 'live'",
        "UPDATE entitlements SET ended_at = NULL WHERE state = 'ended'",
    ]
    with engine.begin() as connection:
        for statement in bare:
            connection.execute(text(statement))
    migrate.upgrade(engine, "0002")
    migrate.downgrade(engine, "0001")
    found = rows(engine)
    assert [row["state"] for row in found["licenses"]] == [
        "issued",
        "issued",
        "issued",
        "revoked",
        "issuing",
        "issuing",
    ]
    assert found["licenses"][0]["superseded_at"] is not None
    assert found["licenses"][3]["revoked_at"] is not None
    assert [row["state"] for row in found["entitlements"]] == [
        "proposed",
        "approved",
        "live",
        "ended",
        "ended",
        "ended",
    ]


def test_a_request_without_its_entitlement_keeps_what_it_was_granted(engine: Engine) -> None:
    fill(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE entitlements SET request_id = NULL"))
    before = rows(engine)["requests"]
    migrate.upgrade(engine, "0002")
    migrate.downgrade(engine, "0001")
    assert rows(engine)["requests"] == before


def test_foreign_keys_are_on_again_and_a_broken_reference_stops_the_migration(
    tmp_path: Path,
) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    migrate.upgrade(engine, "0001")
    migrate.upgrade(engine, "0001")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        driver.execute("INSERT INTO staff_roles VALUES ('nobody', 'admin', '2026-11-23 12:00:00')")
        driver.execute("PRAGMA foreign_keys=ON")
    with pytest.raises(RuntimeError, match="break references"):
        migrate.upgrade(engine, "0002")
    assert migrate.current(engine) == "0001"
    assert "terms_acceptances" in rows(engine)
    engine.dispose()
