"""Notices that were told, reminders that were declined, and what became of each mail.

Attempts of mails sent before are not known: they say 0.
"""

import sqlalchemy as sa
from alembic import op

from portal.db import types

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = types.UtcDateTime(timezone=True)
STATES = "'queued', 'sent', 'failed'"


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("told_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "kind", name=op.f("pk_notices")),
    )
    op.add_column("members", sa.Column("reminders_off_at", INSTANT, nullable=True))
    with op.batch_alter_table("emails") as batch:
        batch.add_column(sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
        batch.add_column(sa.Column("resent_from", sa.String(), nullable=True))
        batch.drop_constraint(op.f("ck_emails_state_known"), type_="check")
        batch.create_check_constraint(
            op.f("ck_emails_state_known"), f"state IN ({STATES}, 'withdrawn')"
        )
    op.create_index("ix_emails_created_at", "emails", ["created_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_emails_created_at", table_name="emails")
    op.execute("UPDATE emails SET state = 'failed' WHERE state = 'withdrawn'")
    with op.batch_alter_table("emails") as batch:
        batch.drop_constraint(op.f("ck_emails_state_known"), type_="check")
        batch.create_check_constraint(op.f("ck_emails_state_known"), f"state IN ({STATES})")
        batch.drop_column("resent_from")
        batch.drop_column("attempts")
    with op.batch_alter_table("members") as batch:
        batch.drop_column("reminders_off_at")
    op.drop_table("notices")
