"""The signer finds what it sealed by the act and its instant.

Nothing else changes: what was sealed stands in the audit trail. Entitlements that are older than
custody stay as they are and wait for an operator's review.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_rows_action_at", "audit_rows", ["action", "at"])


def downgrade() -> None:
    op.drop_index("ix_audit_rows_action_at", table_name="audit_rows")
