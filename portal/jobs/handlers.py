"""What the worker does for each job kind, and what recurs."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from portal.domain.ports import Mail, Mailer, MailTemplates, MailUndelivered
from portal.jobs.worker import Handler, Schedule
from portal.services.acts.machinery import lapse_acts
from portal.services.audit_seals import seal_committed
from portal.services.bundles import publish_bundle
from portal.services.causes import (
    PROVE_CAUSE,
    PROVE_LIFT,
    claimed_approvals,
    prove_cause_job,
    prove_lift_job,
)
from portal.services.context import SYSTEM, Transactions
from portal.services.emails import (
    SEND_EMAIL,
    note_sent,
    note_undelivered,
    note_withdrawn,
    open_letter,
)
from portal.services.entitlements import end_lapsed
from portal.services.license_checks import check_nightly
from portal.services.licenses import issue_license
from portal.services.lines import FOLLOW_LINE, ISSUE_LICENSE, follow, look_after_lines
from portal.services.reminders import tell_due, why_outdated
from portal.services.tidy import tidy


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
        return {
            FOLLOW_LINE: self.follow,
            ISSUE_LICENSE: self.issue,
            PROVE_CAUSE: self.prove_cause,
            PROVE_LIFT: self.prove_lift,
            SEND_EMAIL: self.send,
        }

    def schedules(self) -> list[Schedule]:
        """Return what recurs."""
        return [
            Schedule("audit-seal", timedelta(seconds=1), self.seal),
            Schedule("license-check", timedelta(days=1), self.check),
            Schedule("bundle", timedelta(minutes=1), self.publish),
            Schedule("lapse", timedelta(minutes=1), self.lapse),
            Schedule("notices", timedelta(minutes=1), self.notify),
            Schedule("tidy", timedelta(hours=1), self.tidy),
        ]

    def issue(self, payload: Mapping[str, Any]) -> None:
        """Take a license to its release."""
        issue_license(self._transactions, str(payload["license_id"]), SYSTEM)

    def prove_cause(self, payload: Mapping[str, Any]) -> None:
        """Prove an entitlement that staff approved or changed, and seal it."""
        approvals = claimed_approvals(payload["approvals"])
        prove_cause_job(self._transactions, str(payload["entitlement_id"]), approvals, SYSTEM)

    def prove_lift(self, payload: Mapping[str, Any]) -> None:
        """Prove that staff lifted a hold, and seal it."""
        approvals = claimed_approvals(payload["approvals"])
        prove_lift_job(self._transactions, str(payload["hold_id"]), approvals, SYSTEM)

    def follow(self, payload: Mapping[str, Any]) -> None:
        """Bring a deployment's license to what is live now."""
        with self._transactions.writing(SYSTEM) as context:
            follow(context, str(payload["deployment_id"]))

    def send(self, payload: Mapping[str, Any]) -> None:
        """Render and send a queued mail, then erase the secret it carried.

        One that says what is no longer true is withdrawn instead.

        Raises:
            MailUndelivered: try again later; the reason stands in the mail's row.
        """
        email_id = str(payload["email_id"])
        with self._transactions.reading(SYSTEM) as context:
            letter = open_letter(context, email_id)
            outdated = None if letter is None else why_outdated(context, email_id)
        if letter is None:
            return
        if outdated is not None:
            with self._transactions.writing(SYSTEM) as context:
                note_withdrawn(context, email_id, outdated)
            return
        rendered = self._templates.render(letter.template, letter.facts)
        mail = Mail(
            letter.to_address, rendered.subject, rendered.text, rendered.html, letter.headers
        )
        try:
            self._mailer.send(mail)
        except MailUndelivered as error:
            with self._transactions.writing(SYSTEM) as context:
                note_undelivered(context, email_id, str(error))
            raise
        with self._transactions.writing(SYSTEM) as context:
            note_sent(context, email_id)

    def seal(self) -> None:
        """Seal the audit rows that were committed since the last seal."""
        seal_committed(self._transactions)

    def publish(self) -> None:
        """Publish a revocation bundle when it would say something new, and at least daily."""
        publish_bundle(self._transactions, SYSTEM, only_if_due=True)

    def check(self) -> None:
        """Verify and compute anew everything issued, and record what falls short."""
        check_nightly(self._transactions, SYSTEM)

    def lapse(self) -> None:
        """End what nobody started or approved in time, and look after lines with ends."""
        with self._transactions.writing(SYSTEM) as context:
            end_lapsed(context)
            lapse_acts(context)
            look_after_lines(context)

    def notify(self) -> None:
        """Tell what is due of licenses: expiry ahead, budgets, files to install."""
        tell_due(self._transactions)

    def tidy(self) -> None:
        """Remove what nobody needs any more."""
        with self._transactions.writing(SYSTEM) as context:
            tidy(context)
