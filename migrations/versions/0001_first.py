"""The first schema, with an audit trail the database keeps from being changed."""

import sqlalchemy as sa
from alembic import op

from portal.db import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {"audit_rows": "id", "audit_seals": "number", "sealed_rows": "audit_row_id"}
"""Tables that only grow, each with its primary key, which is its only unique constraint."""


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("email_domain", sa.String(), nullable=True),
        sa.Column("registrable_domain", sa.String(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("closed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_index(op.f("ix_accounts_email_domain"), "accounts", ["email_domain"], unique=False)
    op.create_index(
        op.f("ix_accounts_registrable_domain"), "accounts", ["registrable_domain"], unique=False
    )
    op.create_table(
        "audit_rows",
        sa.Column("id", types.RowNumber, nullable=False),
        sa.Column("at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor_kind", sa.String(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=True),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("subject_kind", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("detail", types.JsonValue, nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("http_request_id", sa.String(), nullable=True),
        sa.CheckConstraint(
            "actor_kind IN ('person', 'staff', 'system', 'command', 'instance', 'anonymous')",
            name=op.f("ck_audit_rows_actor_kind_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_rows")),
    )
    op.create_index(op.f("ix_audit_rows_account_id"), "audit_rows", ["account_id"], unique=False)
    op.create_index(op.f("ix_audit_rows_at"), "audit_rows", ["at"], unique=False)
    op.create_index(
        "ix_audit_rows_subject", "audit_rows", ["subject_kind", "subject_id"], unique=False
    )
    op.create_table(
        "audit_seals",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("rows_sha256", sa.String(), nullable=False),
        sa.Column("lease_from", sa.BigInteger(), nullable=False),
        sa.Column("lease_to", sa.BigInteger(), nullable=False),
        sa.Column("leases_sha256", sa.String(), nullable=False),
        sa.Column("prev_sha256", sa.String(), nullable=False),
        sa.Column("seal_sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_seals")),
    )
    op.create_table(
        "bundles",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload_sha256", sa.String(), nullable=False),
        sa.Column("entries_sha256", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("issued_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_bundles")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("beat_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", types.RowNumber, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("unique_key", sa.String(), nullable=False),
        sa.Column("payload", types.JsonValue, nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("run_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claimed_until", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("done_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("parked_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("kind", "unique_key", name=op.f("uq_jobs_kind_unique_key")),
    )
    op.create_index("ix_jobs_open", "jobs", ["done_at", "parked_at", "run_at"], unique=False)
    op.create_table(
        "keyset_versions",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("payload_sha256", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_keyset_versions")),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("company", sa.String(), nullable=True),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("email_confirmed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("password_changed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('customer', 'staff')", name=op.f("ck_people_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("email", name=op.f("uq_people_email")),
    )
    op.create_table(
        "rate_counts",
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("window_started_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("window_ends_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name=op.f("pk_rate_counts")),
    )
    op.create_index(
        op.f("ix_rate_counts_window_ends_at"), "rate_counts", ["window_ends_at"], unique=False
    )
    op.create_table(
        "signing_keys",
        sa.Column("keyid", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("keyid", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("closed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deployments_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_index(op.f("ix_deployments_account_id"), "deployments", ["account_id"], unique=False)
    op.create_table(
        "email_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("token_sha256", sa.String(), nullable=False),
        sa.Column("code_sha256", sa.String(), nullable=True),
        sa.Column("code_attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("used_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "purpose IN ('confirm-email', 'reset-password', 'set-password')",
            name=op.f("ck_email_tokens_purpose_known"),
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_email_tokens_person_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_tokens")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_email_tokens_token_sha256")),
    )
    op.create_index(op.f("ix_email_tokens_person_id"), "email_tokens", ["person_id"], unique=False)
    op.create_table(
        "emails",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("person_id", sa.String(), nullable=True),
        sa.Column("to_address", sa.String(), nullable=False),
        sa.Column("template", sa.String(), nullable=False),
        sa.Column("facts", types.JsonValue, nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("sent_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'sent', 'failed')", name=op.f("ck_emails_state_known")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_emails_account_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_emails_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_emails")),
    )
    op.create_index(op.f("ix_emails_account_id"), "emails", ["account_id"], unique=False)
    op.create_index(op.f("ix_emails_person_id"), "emails", ["person_id"], unique=False)
    op.create_table(
        "form_drafts",
        sa.Column("token_sha256", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sealed_fields", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_form_drafts_person_id")
        ),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_form_drafts")),
    )
    op.create_index(op.f("ix_form_drafts_expires_at"), "form_drafts", ["expires_at"], unique=False)
    op.create_table(
        "members",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("removed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('owner', 'billing', 'operator', 'viewer')", name=op.f("ck_members_role_known")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_members_account_id")
        ),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_members_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint(
            "account_id", "person_id", name=op.f("uq_members_account_id_person_id")
        ),
    )
    op.create_index(op.f("ix_members_person_id"), "members", ["person_id"], unique=False)
    op.create_table(
        "recovery_codes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("code_sha256", sa.String(), nullable=False),
        sa.Column("used_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_recovery_codes_person_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
        sa.UniqueConstraint("code_sha256", name=op.f("uq_recovery_codes_code_sha256")),
    )
    op.create_index(
        op.f("ix_recovery_codes_person_id"), "recovery_codes", ["person_id"], unique=False
    )
    op.create_table(
        "sealed_rows",
        sa.Column("audit_row_id", types.RowNumber, autoincrement=False, nullable=False),
        sa.Column("seal_number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audit_row_id"], ["audit_rows.id"], name=op.f("fk_sealed_rows_audit_row_id")
        ),
        sa.ForeignKeyConstraint(
            ["seal_number"], ["audit_seals.number"], name=op.f("fk_sealed_rows_seal_number")
        ),
        sa.PrimaryKeyConstraint("audit_row_id", name=op.f("pk_sealed_rows")),
    )
    op.create_index(
        op.f("ix_sealed_rows_seal_number"), "sealed_rows", ["seal_number"], unique=False
    )
    op.create_table(
        "second_factors",
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_second_factors_person_id")
        ),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_second_factors")),
    )
    op.create_table(
        "sign_ins",
        sa.Column("token_sha256", sa.String(), nullable=False),
        sa.Column("public_id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("reauthenticated_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("factor_passed_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("ended_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("user_agent", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_sign_ins_account_id")
        ),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_sign_ins_person_id")),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("public_id", name=op.f("uq_sign_ins_public_id")),
    )
    op.create_index(
        "ix_sign_ins_person_id_ended_at", "sign_ins", ["person_id", "ended_at"], unique=False
    )
    op.create_table(
        "staff_roles",
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("granted_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "role IN ('support', 'approver', 'keys', 'admin', 'auditor')",
            name=op.f("ck_staff_roles_role_known"),
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_staff_roles_person_id")
        ),
        sa.PrimaryKeyConstraint("person_id", "role", name=op.f("pk_staff_roles")),
    )
    op.create_table(
        "terms_acceptances",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("occasion", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=True),
        sa.Column("accepted_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "occasion IN ('sign-up', 'request', 'purchase')",
            name=op.f("ck_terms_acceptances_occasion_known"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_terms_acceptances_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_terms_acceptances_person_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terms_acceptances")),
    )
    op.create_index(
        op.f("ix_terms_acceptances_account_id"), "terms_acceptances", ["account_id"], unique=False
    )
    op.create_index(
        op.f("ix_terms_acceptances_person_id"), "terms_acceptances", ["person_id"], unique=False
    )
    op.create_table(
        "enrollment_codes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("code_sha256", sa.String(), nullable=False),
        sa.Column("uses_allowed", sa.Integer(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=True),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"], ["people.id"], name=op.f("fk_enrollment_codes_created_by")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_enrollment_codes_deployment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrollment_codes")),
        sa.UniqueConstraint("code_sha256", name=op.f("uq_enrollment_codes_code_sha256")),
    )
    op.create_index(
        op.f("ix_enrollment_codes_deployment_id"),
        "enrollment_codes",
        ["deployment_id"],
        unique=False,
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("email_domain", sa.String(), nullable=True),
        sa.Column("registrable_domain", sa.String(), nullable=True),
        sa.Column("asked", types.JsonValue, nullable=False),
        sa.Column("granted", types.JsonValue, nullable=True),
        sa.Column("policy", types.JsonValue, nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("promised_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("taken_by", sa.String(), nullable=True),
        sa.Column("decided_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("decision_note", sa.String(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('evaluation', 'pilot', 'renewal', 'replacement')",
            name=op.f("ck_requests_kind_known"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'approved', 'declined', 'withdrawn')",
            name=op.f("ck_requests_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_requests_account_id")
        ),
        sa.ForeignKeyConstraint(["decided_by"], ["people.id"], name=op.f("fk_requests_decided_by")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_requests_deployment_id")
        ),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_requests_person_id")),
        sa.ForeignKeyConstraint(["taken_by"], ["people.id"], name=op.f("fk_requests_taken_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_account_id"), "requests", ["account_id"], unique=False)
    op.create_index(op.f("ix_requests_deployment_id"), "requests", ["deployment_id"], unique=False)
    op.create_index(
        op.f("ix_requests_registrable_domain"), "requests", ["registrable_domain"], unique=False
    )
    op.create_index(
        "ix_requests_state_created_at", "requests", ["state", "created_at"], unique=False
    )
    op.create_table(
        "entitlements",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("sku", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("term_s", sa.Integer(), nullable=True),
        sa.Column("features", types.JsonValue, nullable=False),
        sa.Column("limits", types.JsonValue, nullable=False),
        sa.Column("tokens_total", sa.BigInteger(), nullable=True),
        sa.Column("budget_id", sa.String(), nullable=True),
        sa.Column("fingerprints", types.JsonValue, nullable=False),
        sa.Column("support_tier", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=True),
        sa.Column("approved_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.String(), nullable=True),
        sa.Column("start_by_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("starts_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("ends_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("ended_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.String(), nullable=True),
        sa.CheckConstraint("mode IN ('offline', 'lease')", name=op.f("ck_entitlements_mode_known")),
        sa.CheckConstraint(
            "source IN ('evaluation', 'pilot', 'order', 'subscription', 'contract', 'marketplace')",
            name=op.f("ck_entitlements_source_known"),
        ),
        sa.CheckConstraint(
            "state IN ('proposed', 'approved', 'live', 'ended')",
            name=op.f("ck_entitlements_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_entitlements_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["approved_by"], ["people.id"], name=op.f("fk_entitlements_approved_by")
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["people.id"], name=op.f("fk_entitlements_created_by")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_entitlements_deployment_id")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_entitlements_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entitlements")),
        sa.UniqueConstraint("request_id", name=op.f("uq_entitlements_request_id")),
    )
    op.create_index(
        op.f("ix_entitlements_account_id"), "entitlements", ["account_id"], unique=False
    )
    op.create_index(
        op.f("ix_entitlements_deployment_id"), "entitlements", ["deployment_id"], unique=False
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("code_id", sa.String(), nullable=False),
        sa.Column("keyid", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("enrolled_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("released_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("retired_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("slot_free_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("software", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column("last_seen_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("bundle_version", sa.BigInteger(), nullable=False),
        sa.Column("keyset_version", sa.Integer(), nullable=False),
        sa.Column("usage_budget_id", sa.String(), nullable=True),
        sa.Column("usage_tokens", sa.BigInteger(), nullable=False),
        sa.Column("usage_requests", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("lease_sha256", sa.String(), nullable=False),
        sa.Column("lease_status", sa.String(), nullable=False),
        sa.Column("lease_issued_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("lease_expires_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("lease_grace_until_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("lease_budget_id", sa.String(), nullable=True),
        sa.Column("lease_tokens_total", sa.BigInteger(), nullable=False),
        sa.Column("renew_earliest_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("renew_latest_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_instances_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["code_id"], ["enrollment_codes.id"], name=op.f("fk_instances_code_id")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_instances_deployment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("code_id", "keyid", name=op.f("uq_instances_code_id_keyid")),
        sa.UniqueConstraint("keyid", name=op.f("uq_instances_keyid")),
    )
    op.create_index(op.f("ix_instances_account_id"), "instances", ["account_id"], unique=False)
    op.create_index(
        op.f("ix_instances_deployment_id"), "instances", ["deployment_id"], unique=False
    )
    op.create_table(
        "request_messages",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("author_id", sa.String(), nullable=False),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "audience IN ('customer', 'staff')", name=op.f("ck_request_messages_audience_known")
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["people.id"], name=op.f("fk_request_messages_author_id")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_request_messages_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_messages")),
    )
    op.create_index(
        op.f("ix_request_messages_request_id"), "request_messages", ["request_id"], unique=False
    )
    op.create_table(
        "forks",
        sa.Column("id", types.RowNumber, nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("noted_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("prev_epoch", sa.BigInteger(), nullable=False),
        sa.Column("prev_seq", sa.BigInteger(), nullable=False),
        sa.Column("prev_sha256", sa.String(), nullable=False),
        sa.Column("held_epoch", sa.Integer(), nullable=False),
        sa.Column("held_seq", sa.BigInteger(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("cleared_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_forks_instance_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forks")),
    )
    op.create_index(op.f("ix_forks_instance_id"), "forks", ["instance_id"], unique=False)
    op.create_table(
        "holds",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("entitlement_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("opened_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("opened_by", sa.String(), nullable=True),
        sa.Column("lifted_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("lifted_by", sa.String(), nullable=True),
        sa.CheckConstraint(
            "cause IN ('dispute', 'past-due', 'refund', 'staff', 'abuse')",
            name=op.f("ck_holds_cause_known"),
        ),
        sa.ForeignKeyConstraint(
            ["entitlement_id"], ["entitlements.id"], name=op.f("fk_holds_entitlement_id")
        ),
        sa.ForeignKeyConstraint(["lifted_by"], ["people.id"], name=op.f("fk_holds_lifted_by")),
        sa.ForeignKeyConstraint(["opened_by"], ["people.id"], name=op.f("fk_holds_opened_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
    )
    op.create_index(op.f("ix_holds_entitlement_id"), "holds", ["entitlement_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("number", types.RowNumber, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("license_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("payload_sha256", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("issued_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_leases_instance_id")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_leases")),
        sa.UniqueConstraint("id", name=op.f("uq_leases_id")),
        sa.UniqueConstraint(
            "instance_id", "epoch", "seq", name=op.f("uq_leases_instance_id_epoch_seq")
        ),
        sa.UniqueConstraint(
            "instance_id", "request_id", name=op.f("uq_leases_instance_id_request_id")
        ),
    )
    op.create_index(op.f("ix_leases_issued_at"), "leases", ["issued_at"], unique=False)
    op.create_table(
        "licenses",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("entitlement_id", sa.String(), nullable=False),
        sa.Column("issue_key", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("sku", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("created_at", types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("supersedes", sa.String(), nullable=True),
        sa.Column("budget_id", sa.String(), nullable=True),
        sa.Column("tokens_total", sa.BigInteger(), nullable=True),
        sa.Column("features", types.JsonValue, nullable=True),
        sa.Column("limits", types.JsonValue, nullable=True),
        sa.Column("fingerprints", types.JsonValue, nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("payload_sha256", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("issued_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("not_before_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("expires_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("file_sha256", sa.String(), nullable=True),
        sa.Column("released_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("superseded_by", sa.String(), nullable=True),
        sa.Column("superseded_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("installed_marked_at", types.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint("mode IN ('offline', 'lease')", name=op.f("ck_licenses_mode_known")),
        sa.CheckConstraint(
            "state IN ('issuing', 'issued', 'superseded', 'revoked')",
            name=op.f("ck_licenses_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_licenses_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_licenses_deployment_id")
        ),
        sa.ForeignKeyConstraint(
            ["entitlement_id"], ["entitlements.id"], name=op.f("fk_licenses_entitlement_id")
        ),
        sa.ForeignKeyConstraint(
            ["supersedes"], ["licenses.id"], name=op.f("fk_licenses_supersedes")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_licenses")),
        sa.UniqueConstraint(
            "deployment_id", "revision", name=op.f("uq_licenses_deployment_id_revision")
        ),
        sa.UniqueConstraint("issue_key", name=op.f("uq_licenses_issue_key")),
    )
    op.create_index(op.f("ix_licenses_account_id"), "licenses", ["account_id"], unique=False)
    op.create_index(op.f("ix_licenses_deployment_id"), "licenses", ["deployment_id"], unique=False)
    op.create_index(
        op.f("ix_licenses_entitlement_id"), "licenses", ["entitlement_id"], unique=False
    )
    op.create_index(op.f("ix_licenses_expires_at"), "licenses", ["expires_at"], unique=False)
    for table, key in APPEND_ONLY.items():
        _refuse_changes(table, key)


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for table in APPEND_ONLY:
            op.execute(f"DROP TRIGGER {table}_no_change ON {table}")
            op.execute(f"DROP TRIGGER {table}_no_truncate ON {table}")
        op.execute("DROP FUNCTION refuse_change()")
    op.drop_index(op.f("ix_licenses_expires_at"), table_name="licenses")
    op.drop_index(op.f("ix_licenses_entitlement_id"), table_name="licenses")
    op.drop_index(op.f("ix_licenses_deployment_id"), table_name="licenses")
    op.drop_index(op.f("ix_licenses_account_id"), table_name="licenses")
    op.drop_table("licenses")
    op.drop_index(op.f("ix_leases_issued_at"), table_name="leases")
    op.drop_table("leases")
    op.drop_index(op.f("ix_holds_entitlement_id"), table_name="holds")
    op.drop_table("holds")
    op.drop_index(op.f("ix_forks_instance_id"), table_name="forks")
    op.drop_table("forks")
    op.drop_index(op.f("ix_request_messages_request_id"), table_name="request_messages")
    op.drop_table("request_messages")
    op.drop_index(op.f("ix_instances_deployment_id"), table_name="instances")
    op.drop_index(op.f("ix_instances_account_id"), table_name="instances")
    op.drop_table("instances")
    op.drop_index(op.f("ix_entitlements_deployment_id"), table_name="entitlements")
    op.drop_index(op.f("ix_entitlements_account_id"), table_name="entitlements")
    op.drop_table("entitlements")
    op.drop_index("ix_requests_state_created_at", table_name="requests")
    op.drop_index(op.f("ix_requests_registrable_domain"), table_name="requests")
    op.drop_index(op.f("ix_requests_deployment_id"), table_name="requests")
    op.drop_index(op.f("ix_requests_account_id"), table_name="requests")
    op.drop_table("requests")
    op.drop_index(op.f("ix_enrollment_codes_deployment_id"), table_name="enrollment_codes")
    op.drop_table("enrollment_codes")
    op.drop_index(op.f("ix_terms_acceptances_person_id"), table_name="terms_acceptances")
    op.drop_index(op.f("ix_terms_acceptances_account_id"), table_name="terms_acceptances")
    op.drop_table("terms_acceptances")
    op.drop_table("staff_roles")
    op.drop_index("ix_sign_ins_person_id_ended_at", table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_table("second_factors")
    op.drop_index(op.f("ix_sealed_rows_seal_number"), table_name="sealed_rows")
    op.drop_table("sealed_rows")
    op.drop_index(op.f("ix_recovery_codes_person_id"), table_name="recovery_codes")
    op.drop_table("recovery_codes")
    op.drop_index(op.f("ix_members_person_id"), table_name="members")
    op.drop_table("members")
    op.drop_index(op.f("ix_form_drafts_expires_at"), table_name="form_drafts")
    op.drop_table("form_drafts")
    op.drop_index(op.f("ix_emails_person_id"), table_name="emails")
    op.drop_index(op.f("ix_emails_account_id"), table_name="emails")
    op.drop_table("emails")
    op.drop_index(op.f("ix_email_tokens_person_id"), table_name="email_tokens")
    op.drop_table("email_tokens")
    op.drop_index(op.f("ix_deployments_account_id"), table_name="deployments")
    op.drop_table("deployments")
    op.drop_table("signing_keys")
    op.drop_index(op.f("ix_rate_counts_window_ends_at"), table_name="rate_counts")
    op.drop_table("rate_counts")
    op.drop_table("people")
    op.drop_table("keyset_versions")
    op.drop_index("ix_jobs_open", table_name="jobs")
    op.drop_table("jobs")
    op.drop_table("heartbeats")
    op.drop_table("bundles")
    op.drop_table("audit_seals")
    op.drop_index("ix_audit_rows_subject", table_name="audit_rows")
    op.drop_index(op.f("ix_audit_rows_at"), table_name="audit_rows")
    op.drop_index(op.f("ix_audit_rows_account_id"), table_name="audit_rows")
    op.drop_table("audit_rows")
    op.drop_index(op.f("ix_accounts_registrable_domain"), table_name="accounts")
    op.drop_index(op.f("ix_accounts_email_domain"), table_name="accounts")
    op.drop_table("accounts")


def _refuse_changes(table: str, key: str) -> None:
    """Make the database refuse UPDATE, DELETE, TRUNCATE and REPLACE on `table`."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for act in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    # REPLACE deletes what is in its way, and asks no trigger for DELETE about it where a connection
    # has recursive_triggers off, as SQLite's own shell has.
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}"
        f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
        f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )
