"""Terms as one JSON value, and nothing stored that follows from what stands beside it.

What was asked, granted and entitled becomes one shape. A license keeps what its payload does not
say; its standing, like the state of an entitlement, follows from instants. The table of those who
accepted the terms of use is named after them.

The values are converted by SQL that knows the shapes of its day, whatever the code becomes.
"""

import sqlalchemy as sa
from alembic import op

from portal.db import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DAY_S = 86400
INSTANT = types.UtcDateTime(timezone=True)
TERMS = {
    "sku": sa.String(),
    "mode": sa.String(),
    "term_s": sa.Integer(),
    "features": types.JsonValue,
    "limits": types.JsonValue,
    "tokens_total": sa.BigInteger(),
    "fingerprints": types.JsonValue,
    "support_tier": sa.String(),
}
"""The columns of an entitlement that become its terms."""
REQUIRED_TERMS = ("sku", "mode", "features", "limits", "fingerprints")
DERIVED = {
    "supersedes": sa.String(),
    "budget_id": sa.String(),
    "tokens_total": sa.BigInteger(),
    "features": types.JsonValue,
    "limits": types.JsonValue,
    "fingerprints": types.JsonValue,
    "not_before_at": INSTANT,
}
"""The columns of a license that its payload says."""


def upgrade() -> None:
    _move_acceptances("terms_acceptances", "terms_of_use_acceptances")
    op.add_column("requests", sa.Column("background", types.JsonValue, nullable=True))
    op.execute(
        f"UPDATE requests SET background = {_background()}, asked = {_requested('asked')},"
        " granted = CASE WHEN granted IS NOT NULL THEN coalesce("
        f"(SELECT {_entitled()} FROM entitlements WHERE entitlements.request_id = requests.id),"
        f" {_requested('granted')}) END"
    )
    with op.batch_alter_table("requests") as batch:
        batch.alter_column("background", existing_type=types.JsonValue, nullable=False)

    op.add_column("entitlements", sa.Column("terms", types.JsonValue, nullable=True))
    op.execute(
        f"UPDATE entitlements SET terms = {_entitled()},"
        " approved_at = CASE WHEN state IN ('approved', 'live')"
        " THEN coalesce(approved_at, created_at) WHEN state = 'ended' THEN approved_at END,"
        " starts_at = CASE WHEN state = 'live' THEN coalesce(starts_at, approved_at, created_at)"
        " WHEN state = 'ended' THEN starts_at END,"
        " ended_at = CASE WHEN state = 'ended'"
        " THEN coalesce(ended_at, ends_at, start_by_at, created_at) END"
    )
    with op.batch_alter_table("entitlements") as batch:
        for name in ("mode", "source", "state"):
            batch.drop_constraint(op.f(f"ck_entitlements_{name}_known"), type_="check")
        for name in ("source", "state", *TERMS):
            batch.drop_column(name)
        batch.alter_column("terms", existing_type=types.JsonValue, nullable=False)

    op.execute(
        "UPDATE licenses SET"
        " released_at = CASE WHEN state <> 'issuing'"
        " THEN coalesce(released_at, issued_at, created_at) END,"
        " revoked_at = CASE WHEN state = 'revoked'"
        " THEN coalesce(revoked_at, released_at, created_at) ELSE revoked_at END,"
        " superseded_at = CASE WHEN state = 'superseded'"
        " THEN coalesce(superseded_at, released_at, created_at) ELSE superseded_at END"
    )
    with op.batch_alter_table("licenses") as batch:
        batch.drop_constraint(op.f("ck_licenses_state_known"), type_="check")
        batch.drop_constraint(op.f("fk_licenses_supersedes"), type_="foreignkey")
        for name in ("state", *DERIVED):
            batch.drop_column(name)


def downgrade() -> None:
    for name, kind in {"state": sa.String(), **DERIVED}.items():
        op.add_column("licenses", sa.Column(name, kind, nullable=True))
    # The first code read from its instant whether a license is superseded; it never wrote the word.
    op.execute(
        "UPDATE licenses SET state = CASE WHEN revoked_at IS NOT NULL THEN 'revoked'"
        " WHEN released_at IS NULL THEN 'issuing' ELSE 'issued' END"
    )
    document = "CAST(payload AS TEXT)" if _is_sqlite() else "convert_from(payload, 'UTF8')::jsonb"
    op.execute(
        f"UPDATE licenses SET supersedes = {_text(document, 'supersedes')},"
        f" budget_id = {_text(document, 'budget', 'budget_id')},"
        f" tokens_total = {_number(document, 'budget', 'tokens_total')},"
        f" features = {_value(document, 'features')}, limits = {_value(document, 'limits')},"
        f" fingerprints = {_value(document, 'binding', 'fingerprints')},"
        f" not_before_at = {_instant(_number(document, 'not_before_at'))}"
        " WHERE payload IS NOT NULL"
    )
    with op.batch_alter_table("licenses") as batch:
        batch.alter_column("state", existing_type=sa.String(), nullable=False)
        batch.create_check_constraint(
            op.f("ck_licenses_state_known"),
            "state IN ('issuing', 'issued', 'superseded', 'revoked')",
        )
        batch.create_foreign_key(op.f("fk_licenses_supersedes"), "licenses", ["supersedes"], ["id"])

    for name, kind in {"source": sa.String(), "state": sa.String(), **TERMS}.items():
        op.add_column("entitlements", sa.Column(name, kind, nullable=True))
    op.execute(
        f"UPDATE entitlements SET source = {_source(_text('terms', 'sku'))},"
        " state = CASE WHEN ended_at IS NOT NULL THEN 'ended' WHEN starts_at IS NOT NULL THEN"
        " 'live' WHEN approved_at IS NOT NULL THEN 'approved' ELSE 'proposed' END,"
        f" sku = {_text('terms', 'sku')}, mode = {_text('terms', 'mode')},"
        f" term_s = {_number('terms', 'term_s')},"
        f" features = {_value('terms', 'features')}, limits = {_value('terms', 'limits')},"
        f" tokens_total = {_number('terms', 'tokens_total')},"
        f" fingerprints = coalesce({_value('terms', 'fingerprints')}, '[]'),"
        f" support_tier = {_text('terms', 'support_tier')}"
    )
    with op.batch_alter_table("entitlements") as batch:
        for name in ("source", "state", *REQUIRED_TERMS):
            batch.alter_column(name, existing_type=TERMS.get(name, sa.String()), nullable=False)
        for name, words in {
            "mode": "'offline', 'lease'",
            "source": "'evaluation', 'pilot', 'order', 'subscription', 'contract', 'marketplace'",
            "state": "'proposed', 'approved', 'live', 'ended'",
        }.items():
            batch.create_check_constraint(
                op.f(f"ck_entitlements_{name}_known"), f"{name} IN ({words})"
            )
        batch.drop_column("terms")

    op.execute(
        f"UPDATE requests SET asked = CASE kind WHEN 'pilot' THEN {_asked(is_pilot=True)}"
        f" ELSE {_asked(is_pilot=False)} END,"
        f" granted = CASE WHEN granted IS NOT NULL THEN {_granted()} END"
    )
    with op.batch_alter_table("requests") as batch:
        batch.drop_column("background")
    _move_acceptances("terms_of_use_acceptances", "terms_acceptances")


def _move_acceptances(old: str, new: str) -> None:
    """Make the table anew under another name, which its constraints and indexes bear too."""
    op.create_table(
        new,
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("occasion", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=True),
        sa.Column("accepted_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "occasion IN ('sign-up', 'request', 'purchase')",
            name=op.f(f"ck_{new}_occasion_known"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f(f"fk_{new}_account_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f(f"fk_{new}_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{new}")),
    )
    for column in ("account_id", "person_id"):
        op.create_index(op.f(f"ix_{new}_{column}"), new, [column], unique=False)
    columns = "id, person_id, account_id, version, occasion, subject_id, accepted_at"
    op.execute(f"INSERT INTO {new} ({columns}) SELECT {columns} FROM {old}")
    op.drop_table(old)


# What was asked and granted, in the new shape and in the old one.


def _background() -> str:
    return _object(
        purpose=_value("asked", "purpose"),
        goals=_value("asked", "goals"),
        contacts=_value("asked", "contacts"),
        starts_on=_value("asked", "starts_on"),
        expected_tokens=_value("asked", "volume_tokens"),
    )


def _requested(column: str) -> str:
    """Return the terms of an old `asked` or `granted`: its own, and the rest of its SKU's."""
    volume = _number(column, "volume_tokens")
    return _object(
        # Renewals and replacements were never offered; were there one, it would be of its line.
        sku="CASE kind WHEN 'evaluation' THEN 'eval-72h' WHEN 'pilot' THEN 'pilot-30d' ELSE"
        " coalesce((SELECT line.sku FROM entitlements AS line"
        " WHERE line.deployment_id = requests.deployment_id"
        " ORDER BY line.created_at DESC LIMIT 1), 'enterprise-annual') END",
        mode=_value(column, "mode"),
        term_s=f"coalesce({_number(column, 'days')} * {DAY_S},"
        f" CASE kind WHEN 'evaluation' THEN {3 * DAY_S} WHEN 'pilot' THEN {30 * DAY_S} END)",
        features=_value(column, "features"),
        limits=_object(
            tokens_per_window=volume,
            window_s=f"CASE WHEN {volume} IS NOT NULL THEN {7 * DAY_S} END",
            max_instances=f"coalesce({_number(column, 'max_instances')},"
            " CASE kind WHEN 'evaluation' THEN 1 WHEN 'pilot' THEN 3 END)",
            max_concurrency="CASE kind WHEN 'evaluation' THEN 4 END",
        ),
        tokens_total="CASE kind WHEN 'evaluation' THEN 1000000 END",
        fingerprints=_list_of_one(_text(column, "fingerprint")),
    )


def _entitled() -> str:
    """Return the terms of an entitlement's old columns."""
    columns = {name: f"entitlements.{name}" for name in TERMS}
    for name in ("features", "limits", "fingerprints"):
        columns[name] = _json(columns[name])
    return _object(**columns)


def _asked(*, is_pilot: bool) -> str:
    fields = {
        "purpose": _value("background", "purpose"),
        "features": _value("asked", "features"),
        "mode": _value("asked", "mode"),
        "fingerprint": _value("asked", "fingerprints", 0),
    }
    if is_pilot:
        fields |= {
            "goals": f"coalesce({_text('background', 'goals')}, '')",
            "starts_on": _value("background", "starts_on"),
            "volume_tokens": _value("background", "expected_tokens"),
            "contacts": f"coalesce({_text('background', 'contacts')}, '')",
            "days": f"{_number('asked', 'term_s')} / {DAY_S}",
            "max_instances": _value("asked", "limits", "max_instances"),
        }
    return _object(with_nulls=True, **fields)


def _granted() -> str:
    return _object(
        with_nulls=True,
        mode=_value("granted", "mode"),
        days=f"{_number('granted', 'term_s')} / {DAY_S}",
        volume_tokens=_value("granted", "limits", "tokens_per_window"),
        max_instances=_value("granted", "limits", "max_instances"),
        features=_value("granted", "features"),
        fingerprint=_value("granted", "fingerprints", 0),
    )


def _source(sku: str) -> str:
    return (
        f"CASE {sku} WHEN 'eval-72h' THEN 'evaluation' WHEN 'pilot-30d' THEN 'pilot'"
        " WHEN 'enterprise-annual' THEN 'contract' WHEN 'marketplace-seat' THEN 'marketplace'"
        " WHEN 'lease-monthly' THEN 'subscription' ELSE 'order' END"
    )


# JSON and instants in the two dialects.


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _value(column: str, *path: str | int) -> str:
    """Return what stands at a path of a JSON value, to be put into another or stored as JSON."""
    if _is_sqlite():
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        return f"json_extract({column}, '${steps}')"
    return f"({column} #> '{{{','.join(map(str, path))}}}')"


def _text(column: str, *path: str) -> str:
    return _value(column, *path) if _is_sqlite() else _value(column, *path).replace("#>", "#>>")


def _number(column: str, *path: str) -> str:
    return f"CAST({_text(column, *path)} AS BIGINT)"


def _object(*, with_nulls: bool = False, **fields: str) -> str:
    """Return a JSON object of these expressions, without those that are null unless asked for."""
    listed = ", ".join(f"'{name}', {value}" for name, value in fields.items())
    if _is_sqlite():
        # A merge patch removes what is null.
        whole = f"json_object({listed})"
        return whole if with_nulls else f"json_patch('{{}}', {whole})"
    whole = f"jsonb_build_object({listed})"
    return whole if with_nulls else f"jsonb_strip_nulls({whole})"


def _list_of_one(text: str) -> str:
    """Return a JSON array of a text, empty where it is null."""
    if _is_sqlite():
        return _json(f"CASE WHEN {text} IS NULL THEN '[]' ELSE json_array({text}) END")
    return f"CASE WHEN {text} IS NULL THEN '[]'::jsonb ELSE jsonb_build_array({text}) END"


def _json(value: str) -> str:
    """Mark a text as JSON where the database cannot tell."""
    return f"json({value})" if _is_sqlite() else value


def _instant(seconds: str) -> str:
    """Return Unix seconds as instants are stored."""
    if _is_sqlite():
        return f"strftime('%Y-%m-%d %H:%M:%S.000000', {seconds}, 'unixepoch')"
    return f"to_timestamp({seconds})"
