"""What the worker does for each job kind, and what recurs."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update

from portal.db.drafts import FormDraft
from portal.db.email_tokens import EmailToken
from portal.db.emails import Email
from portal.db.instances import Instance
from portal.db.jobs import Job
from portal.db.leases import Lease
from portal.db.rate_limits import RateCount
from portal.domain.ports import Mail, Mailer, MailTemplates, MailUndelivered
from portal.jobs.worker import Handler, Schedule
from portal.services.audit_seals import seal_committed
from portal.services.bundles import publish_bundle
from portal.services.context import SYSTEM, Transactions
from portal.services.emails import SEND_EMAIL
from portal.services.entitlements import end_lapsed
from portal.services.licenses import ISSUE_LICENSE, issue_license

KEEP_DONE_JOBS = timedelta(days=30)
KEEP_ANSWERS = timedelta(days=90)


class Handlers:
    """The handlers of one worker process."""

    def __init__(
        self, transactions: Transactions, templates: MailTemplates, mailer: Mailer
    ) -> None:
        self._transactions = transactions
        self._templates = templates
        self._mailer = mailer

    def by_kind(self) -> Mapping[str, Handler]:
        """Return the handler of each job kind."""
        return {ISSUE_LICENSE: self.issue, SEND_EMAIL: self.send}

    def schedules(self) -> list[Schedule]:
        """Return what recurs."""
        return [
            Schedule("audit-seal", timedelta(seconds=1), self.seal),
            Schedule("bundle", timedelta(minutes=1), self.publish),
            Schedule("lapse", timedelta(minutes=1), self.lapse),
            Schedule("tidy", timedelta(hours=1), self.tidy),
        ]

    def issue(self, payload: Mapping[str, Any]) -> None:
        """Take a license to its release."""
        issue_license(self._transactions, str(payload["license_id"]), SYSTEM)

    def send(self, payload: Mapping[str, Any]) -> None:
        """Render and send a queued mail, then erase the secret it carried.

        Raises:
            MailUndelivered: try again later; the reason stands in the mail's row.
        """
        email_id = str(payload["email_id"])
        with self._transactions.reading(SYSTEM) as context:
            email = context.session.get_one(Email, email_id)
            if email.state == "sent":
                return
            facts = dict(email.facts)
            if email.sealed_secret is not None:
                box = context.ports.secrets
                facts["secret"] = box.open(email.sealed_secret, email.id).decode()
        rendered = self._templates.render(email.template, facts)
        mail = Mail(email.to_address, rendered.subject, rendered.text, rendered.html)
        try:
            self._mailer.send(mail)
        except MailUndelivered as error:
            with self._transactions.writing(SYSTEM) as context:
                context.session.execute(
                    update(Email)
                    .where(Email.id == email_id)
                    .values(state="failed", last_error=str(error)[:500])
                )
            raise
        with self._transactions.writing(SYSTEM) as context:
            context.session.execute(
                update(Email)
                .where(Email.id == email_id)
                .values(state="sent", sent_at=context.at, sealed_secret=None, last_error=None)
            )

    def seal(self) -> None:
        """Seal the audit rows that were committed since the last seal."""
        with self._transactions.writing(SYSTEM) as context:
            seal_committed(context)

    def publish(self) -> None:
        """Publish a revocation bundle when it would say something new, and at least daily."""
        with self._transactions.writing(SYSTEM) as context:
            publish_bundle(context, only_if_due=True)

    def lapse(self) -> None:
        """End what was not started in time and what is over."""
        with self._transactions.writing(SYSTEM) as context:
            end_lapsed(context)

    def tidy(self) -> None:
        """Remove what nobody needs any more: spent tokens, old drafts, counts and done jobs."""
        with self._transactions.writing(SYSTEM) as context:
            at = context.at
            for statement in (
                delete(FormDraft).where(FormDraft.expires_at <= at),
                delete(RateCount).where(RateCount.window_ends_at <= at),
                delete(EmailToken).where(EmailToken.expires_at <= at - KEEP_DONE_JOBS),
                delete(Job).where(Job.done_at <= at - KEEP_DONE_JOBS),
                update(Lease)
                .where(
                    Lease.issued_at <= at - KEEP_ANSWERS,
                    Lease.envelope.is_not(None),
                    # An instance's last lease is kept whole, however old it is.
                    Lease.id.not_in(select(Instance.lease_id)),
                )
                .values(envelope=None),
            ):
                context.session.execute(statement)
