"""Any acts in any order: one current license, budgets that never grow, routers that obey."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licensing.revocation import RevocationEntry
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, License, licenses_of, open_holds
from portal.db.session import Database, make_engine
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EndCause, EntitlementState, compute_terms
from portal.domain.errors import Conflict, Forbidden, Invalid, LimitReached
from portal.domain.standing import HoldCause
from portal.domain.succession import is_said_by
from portal.gateways.rate_limits import DatabaseRateLimiter
from portal.gateways.secret_box import AesGcmBox
from portal.services.acts.amend import AMEND
from portal.services.acts.end import END
from portal.services.acts.kinds import Kind
from portal.services.acts.machinery import preview
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.acts.top_up import TOP_UP
from portal.services.bundles import wanted_entries
from portal.services.context import SYSTEM, Policy, Ports, Transactions
from portal.services.keys import init_keys
from portal.services.licenses import issue_pending, standings
from portal.services.lines import follow, load_line
from tests.conftest import ORIGIN
from tests.databases import copied_file
from tests.factories.accounts import COMMAND, make_customer, make_deployment, make_staff
from tests.factories.acts import agree, ask, do
from tests.factories.followers import Follower, offline
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement
from tests.fakes import FakeClock, FakePasswords, FakeRandomness, MemoryCustody, MemorySigners
from tests.spread import examples

pytestmark = pytest.mark.slow

REFUSALS = (Conflict, Forbidden, Invalid, LimitReached)
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(
            ["renew", "top-up", "amend", "replace", "hold", "lift", "dispute", "lost", "serve"]
        ),
        st.integers(0, 9),
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 40, 200])),
    st.tuples(st.sampled_from(["revoke", "start"]), st.integers(0, 9)),
)


@dataclass
class World:
    """A line, the people who act on it, and a router that follows it."""

    transactions: Transactions
    clock: FakeClock
    ann: str
    ben: str
    deployment_id: str
    first: License
    router: Follower
    budgets: dict[str, int] = field(default_factory=dict)
    """The most tokens each budget id was ever given."""

    def newest(self) -> License:
        with self.transactions.reading(COMMAND) as context:
            return licenses_of(context.session, self.deployment_id)[0]

    def entitlements(self, *, is_pack: bool | None = None) -> list[Entitlement]:
        with self.transactions.reading(COMMAND) as context:
            rows = context.session.query(Entitlement).filter(
                Entitlement.deployment_id == self.deployment_id,
                Entitlement.state == EntitlementState.LIVE,
            )
            found = rows.order_by(Entitlement.place).all()
        return [e for e in found if is_pack is None or CATALOG[e.terms.sku].is_pack is is_pack]

    def act(self, kind: Kind, subject: str, by: str | None, **params: Any) -> None:
        """Do an act with its preview, and require that the two agree."""
        with self.transactions.writing(COMMAND) as context:
            shown = preview(context, kind, ask(kind, subject, by, **params)).to_json()
        done = do(self.transactions, kind, subject, by, **params)
        assert done.preview == shown
        if done.state == "pending":
            done = agree(self.transactions, done, self.ben)
        assert done.outcome is not None
        assert done.outcome["status"] == shown["status"]
        with self.transactions.reading(COMMAND) as context:
            row = context.session.query(AuditRow).filter_by(subject_id=done.id, action="act.done")
            assert row.count() == 1
        issued = shown["licenses"]["issued"]
        if issued:
            document = self.newest().document
            assert document is not None
            assert list(document.features) == issued[0]["features"]
            assert document.revision == issued[0]["revision"]

    def step(self, name: str, number: int) -> None:
        """Do one thing; what the rules refuse is as good."""
        license_ = self.newest()
        if name == "wait":
            self.clock.advance(hours=number)
            with self.transactions.writing(SYSTEM) as context:
                follow(context, self.deployment_id)
            issue_pending(self.transactions, self.deployment_id, SYSTEM)
        elif name == "serve":
            if self.router.decide().terms is not None and self.router.serves:
                self.router.serve(number * 300_000)
        elif name == "start":
            self._start(("eval-72h", "pilot-30d", "marketplace-seat")[number % 3])
        else:
            self._act(name, number, license_)

    def _start(self, sku: str) -> None:
        with self.transactions.reading(COMMAND) as context:
            deployment = context.session.get_one(Deployment, self.deployment_id)
        seat = {"term_s": 90 * 86400, "features": ["routing"], "limits": {"tokens_total": 10**6}}
        terms: dict[str, Any] = seat if sku == "marketplace-seat" else {}
        issue(self.transactions, make_entitlement(self.transactions, deployment, sku=sku, **terms))

    def _act(self, name: str, number: int, license_: License) -> None:
        simple: dict[str, tuple[Kind, dict[str, Any]]] = {
            "renew": (RENEW, {}),
            "top-up": (TOP_UP, {"sku": ("credit-pack-5m", "credit-pack-25m")[number % 2]}),
            "amend": (AMEND, {"limits": {"max_concurrency": 1 + number}}),
            "replace": (REPLACE, {"at_once": number % 2 == 0}),
            "hold": (SUSPEND, {"cause": (HoldCause.STAFF, HoldCause.ABUSE)[number % 2]}),
            "revoke": (REVOKE, {}),
        }
        if name in simple:
            kind, params = simple[name]
            self.act(kind, license_.id, self.ann, **params)
        elif name == "lift":
            with self.transactions.reading(COMMAND) as context:
                holds = open_holds(context.session, self.deployment_id)
            if holds:
                hold = holds[number % len(holds)]
                by = None if hold.cause is HoldCause.DISPUTE else self.ann
                self.act(REINSTATE, license_.id, by, hold_id=hold.id)
        else:
            live = self.entitlements()
            if not live:
                return
            on = live[number % len(live)].id
            if name == "dispute":
                self.act(SUSPEND, license_.id, None, cause=HoldCause.DISPUTE, entitlement_id=on)
            else:
                self.act(END, on, None, cause=EndCause.DISPUTE)

    def check(self, revoked: set[str], revision: int) -> int:
        """Require what must hold after every step; return the newest revision."""
        with self.transactions.reading(COMMAND) as context:
            line = load_line(context, self.deployment_id)
            rows = licenses_of(context.session, self.deployment_id)
            now = standings(context, rows)
            holds = context.session.query(Hold).filter(Hold.lifted_at.is_(None)).all()
            entries = {each.license_id: each for each in wanted_entries(context)}
        computed = compute_terms(line)
        newest = rows[0]
        assert newest.document is not None
        bases = [each for each in line.bases if line.is_live(each)]
        assert len(bases) <= 1
        if computed is not None:
            assert is_said_by(computed, newest.document), "the license says what is live"
            held = any(hold.suspends_line for hold in holds)
            assert now[newest.id].state in (("suspended",) if held else ("issued", "not-yet-valid"))
        else:
            assert now[newest.id].state in ("expired", "revoked")
        assert newest.revision is not None
        assert newest.revision >= revision
        self._check_budgets(rows)
        self._check_revoked(rows, entries, revoked)
        self._check_router(newest, is_serving=now[newest.id].state == "issued")
        return newest.revision

    def _check_budgets(self, rows: list[License]) -> None:
        own = {e.budget_id: e.terms.tokens_total or 0 for e in self._all() if e.budget_id}
        seen: list[str] = []
        for row in reversed(rows):
            if row.document is not None and row.document.budget is not None:
                budget = row.document.budget
                assert budget.tokens_total <= own[budget.budget_id]
                if not seen or seen[-1] != budget.budget_id:
                    assert budget.budget_id not in seen, "an earlier budget came back"
                    seen.append(budget.budget_id)

    def _all(self) -> list[Entitlement]:
        with self.transactions.reading(COMMAND) as context:
            return (
                context.session.query(Entitlement).filter_by(deployment_id=self.deployment_id).all()
            )

    def _check_revoked(
        self, rows: list[License], entries: dict[str, RevocationEntry], revoked: set[str]
    ) -> None:
        now_revoked = {row.id for row in rows if row.revoked_at is not None}
        assert revoked <= now_revoked, "revoking is final"
        revoked |= now_revoked
        for row in rows:
            if row.id in now_revoked and row.expires_at and row.expires_at > self.clock.at:
                assert entries[row.id].status == "revoked"

    def _check_router(self, newest: License, *, is_serving: bool) -> None:
        self.router.fetch_bundle()
        self.router.install(newest)
        assert self.router.serves is is_serving
        bought = sum(each.terms.tokens_total or 0 for each in self._all())
        windows = any(each.terms.tokens_total is None for each in self._all())
        assert windows or self.router.served <= bought


@pytest.fixture
def template(sqlite_template: Path) -> Path:
    return sqlite_template


def make_world(template: Path, directory: Path) -> World:
    """Make a line that begins with a budgeted pilot, in a database of its own."""
    database = Database(make_engine(copied_file(template, directory)))
    clock, randomness, signers = FakeClock(), FakeRandomness(), MemorySigners()
    ports: Any = Ports(
        clock=clock,
        randomness=randomness,
        passwords=FakePasswords(),
        secrets=AesGcmBox(b"a data key that tests alone may use", randomness),
        signers=signers,
        limiter=DatabaseRateLimiter(database),
        custody=MemoryCustody(signers),
    )
    transactions = Transactions(database, ports, Policy(origin=ORIGIN))
    with transactions.writing(COMMAND) as context:
        init_keys(context, signers)
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    ann, ben = (make_staff(transactions, f"{name}@vendor.test").id for name in ("ann", "ben"))
    first = issue(transactions, make_budgeted_pilot(transactions, deployment))
    return World(transactions, clock, ann, ben, deployment.id, first, offline(transactions, first))


@settings(max_examples=examples(10, 400))
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
def test_whatever_is_done_the_line_holds(
    template: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    world = make_world(template, tmp_path_factory.mktemp("world"))
    revoked: set[str] = set()
    revision = world.check(revoked, 1)
    try:
        for name, number in steps:
            try:
                world.step(name, number)
            except REFUSALS:
                continue
            revision = world.check(revoked, revision)
    finally:
        world.transactions.database.dispose()
