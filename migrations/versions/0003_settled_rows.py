"""Seals say up to which number every audit row is sealed for good.

Seals made before, or by older code during an update, say 0: the next seal then looks at the whole
trail once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "audit_seals", sa.Column("settled_to", sa.BigInteger(), server_default="0", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("audit_seals", "settled_to")
