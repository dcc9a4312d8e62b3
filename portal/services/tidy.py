"""Removing what is no longer needed.

What people may still ask about is kept for a while. The records that matter (licenses, leases, the
audit trail) are kept for good. The worker tidies every hour.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select, update

from portal.db.drafts import FormDraft
from portal.db.email_tokens import EmailToken
from portal.db.heartbeats import Heartbeat
from portal.db.instances import Fork, Instance
from portal.db.jobs import Job
from portal.db.leases import Lease
from portal.db.rate_limits import RateCount
from portal.db.sign_ins import SignIn
from portal.services.context import Context

KEEP: Final = timedelta(days=30)
"""How long done jobs, used tokens and ended sign-ins are kept."""
KEEP_LEASES_WHOLE: Final = timedelta(days=90)
"""How long the answer to a renewal can be repeated, and the forks of a chain are shown."""


def tidy(context: Context) -> None:
    """Remove what ended long enough ago."""
    over, long_over = context.at - KEEP, context.at - KEEP_LEASES_WHOLE
    for statement in (
        delete(FormDraft).where(FormDraft.expires_at <= context.at),
        delete(RateCount).where(RateCount.window_ends_at <= context.at),
        delete(EmailToken).where(EmailToken.expires_at <= over),
        delete(SignIn).where((SignIn.ended_at <= over) | (SignIn.expires_at <= over)),
        delete(Job).where(Job.done_at <= over),
        delete(Heartbeat).where(Heartbeat.beat_at <= over),
        delete(Fork).where(Fork.noted_at <= long_over),
        update(Lease)
        .where(
            Lease.issued_at <= long_over,
            Lease.envelope.is_not(None),
            # An instance's last lease keeps its envelope, however old it is.
            Lease.id.not_in(select(Instance.lease_id)),
        )
        .values(envelope=None),
    ):
        context.session.execute(statement)
