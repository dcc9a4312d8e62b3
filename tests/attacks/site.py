"""A portal under attack: what the attacker can write, and what everybody can see."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import select, update

from licensing.encoding import sha256_hex
from licensing.license import License as LicensePayload
from licensing.license import Limits
from portal.db.accounts import Account
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.db.people import Person
from portal.db.requests import Request
from portal.domain.catalog import fill_terms
from portal.domain.identifiers import BUDGET, ENTITLEMENT, LICENSE, REQUEST, new_id
from portal.domain.requests import Background, RequestKind, RequestState
from portal.domain.terms import Terms
from portal.jobs.handlers import Handlers
from portal.jobs.worker import Worker
from portal.services.context import Actor, Transactions
from portal.services.health import Finding, findings
from portal.services.jobs import enqueue
from portal.services.keys import current_keyset, unix
from portal.services.license_checks import check_licenses
from portal.services.lines import ISSUE_LICENSE
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock, FakeMailer
from tests.jobs.test_worker import Templates, drain

COMMAND = Actor("command")
NOBODY = Actor("anonymous")
HUGE = fill_terms(
    "enterprise-annual",
    term_s=5 * 365 * 86400,
    features=["routing"],
    limits={"max_instances": 100_000},
)


@dataclass
class Site:
    """A portal under attack: its worker, and what the attacker holds."""

    portal: Transactions
    """The worker's and the command's units of work."""
    web: Transactions
    """A web process's: the attacker's."""
    worker: Worker
    mailer: FakeMailer
    clock: FakeClock
    account: Account
    deployment: Deployment
    owner: Person
    staff: Person

    def work(self) -> None:
        """Let the worker do all that is due."""
        drain(self.worker)

    def with_policy(self, **changes: Any) -> "Site":
        """Return the portal with other settings."""
        policy = replace(self.portal.policy, **changes)
        database = self.portal.database
        portal = Transactions(database, self.portal.ports, policy)
        return replace(
            self,
            portal=portal,
            web=Transactions(database, self.web.ports, policy),
            worker=worker_of(portal, self.mailer),
        )

    def forge_entitlement(self, terms: Terms = HUGE, **columns: Any) -> Entitlement:
        """Write an entitlement's row."""
        with self.web.writing(NOBODY) as context:
            has_budget = terms.tokens_total is not None
            at, term_s = context.at.replace(microsecond=0), terms.term_s
            row = Entitlement(
                **{
                    "id": new_id(ENTITLEMENT, context.ports.randomness),
                    "account_id": self.account.id,
                    "deployment_id": self.deployment.id,
                    "terms": terms,
                    "budget_id": new_id(BUDGET, context.ports.randomness) if has_budget else None,
                    "reason": "forged",
                    "created_at": context.at,
                    "approved_at": context.at,
                    "start_by_at": context.at + timedelta(days=30),
                    "starts_at": at,
                    "ends_at": None if term_s is None else at + timedelta(seconds=term_s),
                    **columns,
                }
            )
            context.session.add(row)
            return row

    def forge_request(self, terms: Terms, owner: Person | None = None) -> Request:
        """Write an evaluation request that the policy is said to have granted."""
        with self.web.writing(NOBODY) as context:
            row = Request(
                id=new_id(REQUEST, context.ports.randomness),
                kind=RequestKind.EVALUATION,
                state=RequestState.APPROVED,
                account_id=self.account.id,
                deployment_id=self.deployment.id,
                person_id=(owner or self.owner).id,
                email_domain="x.example",
                registrable_domain=None,
                background=Background(purpose="x"),
                asked=terms,
                granted=terms,
                policy={"granted": True, "reasons": []},
                created_at=context.at,
                promised_at=context.at,
                decided_at=context.at,
            )
            context.session.add(row)
            return row

    def forge_license(self, entitlement: Entitlement, **columns: Any) -> str:
        """Write a license's row that waits to be issued, and its job; return the license's id."""
        with self.web.writing(NOBODY) as context:
            license_id = new_id(LICENSE, context.ports.randomness)
            context.session.add(
                License(
                    **{
                        "id": license_id,
                        "account_id": entitlement.account_id,
                        "deployment_id": entitlement.deployment_id,
                        "entitlement_id": entitlement.id,
                        "issue_key": f"forged:{license_id}",
                        "sku": entitlement.terms.sku,
                        "mode": entitlement.terms.mode,
                        "created_at": context.at,
                        **columns,
                    }
                )
            )
            enqueue(context, ISSUE_LICENSE, license_id, {"license_id": license_id})
        return license_id

    def read(self, license_id: str) -> License:
        """Return a license's row."""
        with self.portal.reading(COMMAND) as context:
            return context.session.get_one(License, license_id)

    def acts(self, *actions: str) -> list[str | None]:
        """Return the reasons of these acts."""
        with self.portal.reading(COMMAND) as context:
            return list(
                context.session.scalars(select(AuditRow.reason).where(AuditRow.action.in_(actions)))
            )

    def unwell(self) -> dict[str, Finding]:
        """Return what the doctor finds not well, as far as custody is concerned."""
        with self.portal.reading(COMMAND) as context:
            found = findings(context, ("license", "seal"))
        return {each.name: each for each in found if not each.well}

    def faults(self) -> dict[str, str]:
        """Return what the checker finds."""
        with self.portal.reading(COMMAND) as context:
            return {each.subject: each.why for each in check_licenses(context).faults}

    def require_refused(self, license_id: str, why: str) -> None:
        """Require that a license was not signed, for a reason, and that everybody can see it."""
        self.work()
        row = self.read(license_id)
        assert (row.envelope, row.released_at) == (None, None)
        reasons = self.acts("license.refused")
        assert any(re.search(why, reason or "") for reason in reasons), reasons
        assert {"refusals", "jobs"} <= set(self.unwell())
        with self.portal.reading(COMMAND) as context:
            job = context.session.scalars(
                select(Job).where(Job.kind == ISSUE_LICENSE, Job.unique_key == license_id)
            ).one()
            assert job.parked_at is not None
            mailed = context.session.scalars(
                select(Email.to_address).where(Email.template == "refused-to-sign")
            ).all()
        assert self.staff.email in mailed


def worker_of(portal: Transactions, mailer: FakeMailer) -> Worker:
    return Worker(portal, Handlers(portal, Templates(), mailer).by_kind(), [], "worker")


def forged_payload(site: Site, license_id: str, **changes: Any) -> bytes:
    """Return the payload that an attacker would like to have signed."""
    with site.web.reading(NOBODY) as context:
        at = unix(context.at)
    document = LicensePayload(
        **{
            "typ": LicensePayload.TYP,
            "iss": "metrum.ai",
            "product": "genai-smart-router",
            "issued_at": at,
            "license_id": license_id,
            "deployment_id": site.deployment.id,
            "revision": 1,
            "customer_id": site.account.id,
            "sku": "enterprise-annual",
            "mode": "offline",
            "not_before_at": at,
            "expires_at": at + 20 * 365 * 86400,
            "features": ("routing",),
            "limits": Limits(max_instances=100_000),
            "binding": {"fingerprints": ()},
            "revocation": {"require_current_bundle": False, "min_version": 0},
            "min_keyset_version": 0,
            **changes,
        }
    )
    value = msgspec.to_builtins(document)
    return msgspec.convert(value, LicensePayload).to_bytes()


def fix_payload(site: Site, license_id: str, payload: bytes) -> None:
    """Store a payload as if it were a license's intent."""
    document = LicensePayload.parse(payload)
    with site.web.writing(NOBODY) as context:
        keyset = current_keyset(context).document
        key_id = next(each.keyid for each in keyset.keys if each.role == "license")
        context.session.execute(
            update(License)
            .where(License.id == license_id)
            .values(
                payload=payload,
                payload_sha256=sha256_hex(payload),
                revision=document.revision,
                key_id=key_id,
                issued_at=context.at.replace(microsecond=0),
                expires_at=context.at + timedelta(days=20 * 365),
            )
        )


def another_customer(site: Site, email: str, company: str) -> Site:
    """Return the site as another account of the attacker's sees it."""
    account, owner = make_customer(site.web, email, company)
    return replace(
        site, account=account, owner=owner, deployment=make_deployment(site.web, account)
    )


def sealed_pilot(site: Site, **limits: int) -> Entitlement:
    """Make a pilot that the command approved, and issue it."""
    entitlement = make_entitlement(site.portal, site.deployment, sku="pilot-30d", limits=limits)
    issue(site.portal, entitlement)
    return entitlement


def seals_of(site: Site, subject_id: str) -> list[AuditRow]:
    """Return the audit rows that seal something about a subject."""
    with site.portal.reading(COMMAND) as context:
        return list(
            context.session.scalars(
                select(AuditRow)
                .where(AuditRow.action == "cause.sealed", AuditRow.subject_id == subject_id)
                .order_by(AuditRow.id)
            )
        )
