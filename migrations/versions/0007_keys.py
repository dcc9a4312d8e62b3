"""Several signatures on a license, keys that no keyset lists yet or that were stopped, key changes."""

import sqlalchemy as sa
from alembic import op

from portal.db.types import JsonValue, UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signing_keys", sa.Column("public_key", sa.LargeBinary(), nullable=True))
    op.add_column("signing_keys", sa.Column("taken_by", sa.String(), nullable=True))
    op.add_column("signing_keys", sa.Column("stopped_at", UtcDateTime(), nullable=True))
    op.add_column(
        "licenses",
        sa.Column("also_signed_by", JsonValue, server_default=sa.text("'[]'"), nullable=False),
    )
    op.create_table(
        "key_changes",
        sa.Column("act_id", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("keyset_version", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("act_id", name=op.f("pk_key_changes")),
    )


def downgrade() -> None:
    op.drop_table("key_changes")
    op.drop_column("licenses", "also_signed_by")
    op.drop_column("signing_keys", "stopped_at")
    op.drop_column("signing_keys", "taken_by")
    op.drop_column("signing_keys", "public_key")
