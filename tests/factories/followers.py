"""Routers that follow a line with the runtime's own engine, offline and leased."""

from dataclasses import dataclass, field
from pathlib import Path

from licensing.encoding import sha256_hex
from licensing.enrollment import Usage
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.request_body import RequestBody
from licensing.verify import KeysetTrust
from portal.db.licenses import License
from portal.services.bundles import publish_bundle, published_bundle
from portal.services.context import Actor, Transactions
from portal.services.enrollments import enroll
from portal.services.keys import current_keyset, unix
from portal.services.leases import renew
from router.config import LicenseConfig, RevocationConfig
from router.documents.decision import Decision, Evidence, decide
from router.state.budgets import LimitExceeded
from router.state.store import State
from tests.factories.instances import Router, make_code, make_router

COMMAND = Actor("command")
POLICY = LicenseConfig(
    Path("l"),
    Path("s"),
    grace_period_s=0,
    revocation=RevocationConfig("file", Path("bundle")),
)
BOUND = LicenseConfig(
    Path("l"),
    Path("s"),
    instance_fingerprint="fp_aaaaaaaa",
    grace_period_s=0,
    revocation=RevocationConfig("file", Path("bundle")),
)


@dataclass
class Follower:
    """A router with its own state: it installs files, takes bundles, and counts tokens."""

    transactions: Transactions
    license: bytes
    policy: LicenseConfig = POLICY
    bundle: bytes | None = None
    state: State = field(default_factory=State)
    served: int = 0
    """Tokens it served in all."""
    _lease: bytes | None = None
    _keyid: str | None = None

    def install(self, license_: License) -> "Follower":
        """Put a license file in place."""
        assert license_.envelope is not None
        self.license = license_.envelope
        return self

    def fetch_bundle(self) -> "Follower":
        """Publish a bundle, and take it."""
        publish_bundle(self.transactions, COMMAND, only_if_due=True)
        with self.transactions.reading(COMMAND) as context:
            self.bundle = published_bundle(context).envelope
        return self

    def decide(self) -> Decision:
        """Decide on what lies there now."""
        with self.transactions.reading(COMMAND) as context:
            evidence = Evidence(
                now=unix(context.at),
                license=self.license,
                trust=KeysetTrust(current_keyset(context).document),
                bundle=self.bundle,
                lease=self._lease,
                instance_keyid=self._keyid,
            )
        decision, self.state = decide(self.policy, self.state, evidence)
        return decision

    @property
    def serves(self) -> bool:
        """Whether it serves now."""
        return self.decide().serving

    def serve(self, tokens: int) -> bool:
        """Serve a request of so many tokens; False when the budget has fewer left."""
        decision = self.decide()
        assert decision.serving, decision.reason
        assert decision.terms is not None
        at = decision.decided_at
        try:
            budgets = self.state.budgets.reserve("r", decision.terms, tokens, at)
        except LimitExceeded:
            return False
        self.state = self.state._with(budgets=budgets.settle("r", tokens, at))
        self.served += tokens
        return True

    @property
    def left(self) -> int | None:
        """The tokens that it may still serve; None: it counts none."""
        decision = self.decide()
        assert decision.serving, decision.reason
        assert decision.terms is not None
        return self.state.budgets.left(decision.terms, decision.decided_at)


@dataclass
class LeasedFollower(Follower):
    """A router that is enrolled, and renews its lease at the portal's services."""

    router: Router | None = None
    renewals: int = 0

    def renew(self) -> Lease:
        """Renew the lease, reporting what was used."""
        assert self.router is not None
        self.renewals += 1
        with self.transactions.reading(COMMAND) as context:
            at = unix(context.at)
        held = self.router.held.budget
        tally = None if held is None else self.state.budgets.tallies.get(held.budget_id)
        usage = (
            {}
            if held is None or tally is None
            else {
                "usage": Usage(
                    budget_id=held.budget_id, tokens_total=tally.used, requests_total=tally.requests
                )
            }
        )
        name = f"{self.router.signer.keyid} {self.renewals}"
        body = RequestBody(self.router.renewal(name, at=at, **usage))
        return self._hold(renew(self.transactions, COMMAND, body).envelope)

    def install(self, license_: License) -> "LeasedFollower":
        """Put a license file in place; the next renewal names it."""
        super().install(license_)
        assert self.router is not None
        sha256 = sha256_hex(Envelope.parse(self.license).payload)
        self.router = Router(self.router.signer, license_.id, sha256, self.router.lease)
        return self

    def _hold(self, envelope: bytes) -> Lease:
        assert self.router is not None
        self.router = self.router.holding(envelope)
        self._lease, self._keyid = envelope, self.router.signer.keyid
        return self.router.held


def offline(
    transactions: Transactions, license_: License, policy: LicenseConfig = POLICY
) -> Follower:
    """Return a router with this license's file."""
    assert license_.envelope is not None
    return Follower(transactions, license_.envelope, policy)


def leased(transactions: Transactions, license_: License, name: str = "router") -> LeasedFollower:
    """Return a router that enrolled under this license, holding its first lease."""
    assert license_.envelope is not None
    router, code = make_router(license_, name), make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        answered = enroll(context, router.enrollment(code, at=unix(context.at)))
    follower = LeasedFollower(transactions, license_.envelope, router=router)
    follower._hold(answered.envelope)
    return follower
