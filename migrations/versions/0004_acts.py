"""Acts, renewals, tokens taken back in part, and how soon a license takes its predecessor's place.

A hold says whether it suspends the whole line; those there were did.
"""

import sqlalchemy as sa
from alembic import op

from portal.db import types

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = types.UtcDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "acts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("deployment_id", sa.String(), nullable=True),
        sa.Column("params", types.JsonValue, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("preview", types.JsonValue, nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("outcome", types.JsonValue, nullable=True),
        sa.Column("submitted_at", INSTANT, nullable=False),
        sa.Column("submitted_by", sa.String(), nullable=True),
        sa.Column("lapses_at", INSTANT, nullable=True),
        sa.Column("decided_at", INSTANT, nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("decision_note", sa.String(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'returned', 'done', 'declined', 'lapsed')",
            name=op.f("ck_acts_state_known"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_acts_account_id")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_acts_deployment_id")
        ),
        sa.ForeignKeyConstraint(["submitted_by"], ["people.id"], name=op.f("fk_acts_submitted_by")),
        sa.ForeignKeyConstraint(["decided_by"], ["people.id"], name=op.f("fk_acts_decided_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acts")),
    )
    for column in ("account_id", "deployment_id", "subject_id"):
        op.create_index(op.f(f"ix_acts_{column}"), "acts", [column], unique=False)
    op.create_index("ix_acts_state_submitted_at", "acts", ["state", "submitted_at"], unique=False)

    with op.batch_alter_table("entitlements") as batch:
        batch.add_column(sa.Column("place", sa.Integer(), server_default="0", nullable=False))
        batch.add_column(sa.Column("renews", sa.String(), nullable=True))
        batch.add_column(
            sa.Column("taken_tokens", sa.BigInteger(), server_default="0", nullable=False)
        )
        batch.add_column(sa.Column("taken_at", INSTANT, nullable=True))
        batch.create_foreign_key(op.f("fk_entitlements_renews"), "entitlements", ["renews"], ["id"])
    with op.batch_alter_table("holds") as batch:
        batch.add_column(
            sa.Column("suspends_line", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
    with op.batch_alter_table("licenses") as batch:
        batch.add_column(sa.Column("hurry", sa.String(), server_default="none", nullable=False))
        batch.add_column(sa.Column("revoked_reason", sa.String(), nullable=True))
        batch.create_check_constraint(
            op.f("ck_licenses_hurry_known"), "hurry IN ('none', 'compromise', 'at-once')"
        )


def downgrade() -> None:
    with op.batch_alter_table("licenses") as batch:
        batch.drop_constraint(op.f("ck_licenses_hurry_known"), type_="check")
        batch.drop_column("revoked_reason")
        batch.drop_column("hurry")
    with op.batch_alter_table("holds") as batch:
        batch.drop_column("suspends_line")
    with op.batch_alter_table("entitlements") as batch:
        batch.drop_constraint(op.f("fk_entitlements_renews"), type_="foreignkey")
        for name in ("taken_at", "taken_tokens", "renews", "place"):
            batch.drop_column(name)
    op.drop_table("acts")
