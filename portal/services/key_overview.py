"""The keys page: each key with its state, age and use, how far the keyset has spread, what is next.

Counts are of documents whose newest signature is the key's, except where a license names all its
keys. Leases are so many that they are counted by their row numbers: gaps in these count too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select

from licensing.envelope import MAX_KEYSET_BYTES, Envelope
from licensing.keys import Key, Keyset
from portal.db.bundles import Bundle
from portal.db.keys import SigningKey
from portal.db.leases import Lease
from portal.db.licenses import License
from portal.domain.keys import ROOT, signing_keys
from portal.services.context import Context
from portal.services.key_readiness import Readiness, readiness
from portal.services.keys import published_keyset, unix

ROTATE_AFTER: Final = timedelta(days=365)
"""How old a key may become before the page asks for the next one."""
MOST_DAYS_LEFT: Final = 180
"""With fewer days left the page asks for the next key, whatever the key's age."""


class KeyState(StrEnum):
    """What is true of a key now."""

    ANNOUNCED = "announced"
    """Published, and does not sign yet."""
    ACTIVE = "active"
    STOPPED = "stopped"
    """Somebody said that it is compromised; it signs nothing until that is decided."""
    RETIRED = "retired"
    """What it signed counts; it signs nothing more."""
    COMPROMISED = "compromised"
    ADDED = "added"
    """Known here and in no keyset yet: the next key of its role."""


class NextStep(StrEnum):
    """What there is to do about a key."""

    NOTHING = "nothing"
    ROTATE = "rotate"
    BRING = "bring"
    """Bring the announced key to every process that signs with it."""
    WAIT = "wait"
    """Its successor has not reached every known router."""
    RETIRE = "retire"
    DECIDE = "decide"


@dataclass(frozen=True)
class KeyRow:
    """One key as the page shows it."""

    keyid: str
    role: str
    state: KeyState
    keeper: str
    """The scheme of its URI, such as `file` or `vault`; empty where it is not known here."""
    begins_at: datetime | None
    ends_at: datetime | None
    signed: int | None
    """Documents it signed; None where they are not counted."""
    used_at: datetime | None
    """When it signed last; None: never."""
    next_step: NextStep

    def age(self, at: datetime) -> timedelta | None:
        """Return how long it has counted."""
        return None if self.begins_at is None else max(timedelta(0), at - self.begins_at)


@dataclass(frozen=True)
class KeysPage:
    """All that the keys page shows."""

    version: int
    published_at: datetime
    expires_at: datetime
    at: datetime
    keys: tuple[KeyRow, ...]
    readiness: Readiness


@dataclass(frozen=True)
class _Use:
    signed: int | None = None
    used_at: datetime | None = None


def keys_page(context: Context) -> KeysPage:
    """Return what the keys page shows.

    Raises:
        Unavailable: no keyset was published yet.
    """
    stored = published_keyset(context)
    keyset = Keyset.parse(Envelope.parse(stored.envelope, max_bytes=MAX_KEYSET_BYTES).payload)
    rows = {row.keyid: row for row in context.session.scalars(select(SigningKey))}
    spread = readiness(context)
    uses = {**_license_use(context), **_span_use(context, keyset)}
    listed = [*keyset.by_keyid, *keyset.roots_by_keyid]
    roots = [
        KeyRow(
            root.keyid,
            ROOT,
            KeyState.ACTIVE,
            _keeper(rows.get(root.keyid)),
            rows[root.keyid].created_at if root.keyid in rows else None,
            None,
            None,
            None,
            NextStep.NOTHING,
        )
        for root in keyset.roots
    ]
    keys = [
        _row(context, keyset, key, rows.get(key.keyid), uses.get(key.keyid, _Use()), spread)
        for key in keyset.keys
    ]
    added = [
        KeyRow(
            row.keyid,
            row.role,
            KeyState.ADDED,
            _keeper(row),
            None,
            None,
            None,
            None,
            NextStep.ROTATE,
        )
        for row in rows.values()
        if row.keyid not in listed and row.taken_by is None and row.public_key is not None
    ]
    return KeysPage(
        stored.version,
        stored.published_at,
        _instant(keyset.expires_at),
        context.at,
        (*roots, *keys, *added),
        spread,
    )


def _row(
    context: Context,
    keyset: Keyset,
    key: Key,
    row: SigningKey | None,
    use: _Use,
    spread: Readiness,
) -> KeyRow:
    state = _state(key, row, unix(context.at))
    return KeyRow(
        key.keyid,
        key.role,
        state,
        _keeper(row),
        _instant(key.not_before_at),
        _instant(key.not_after_at),
        use.signed,
        use.used_at,
        _next_step(keyset, key, state, context.at, spread),
    )


def _state(key: Key, row: SigningKey | None, at: int) -> KeyState:
    if key.status != "active":
        return KeyState(key.status)
    if row is not None and row.stopped_at is not None:
        return KeyState.STOPPED
    return KeyState.ANNOUNCED if key.not_before_at > at else KeyState.ACTIVE


def _next_step(
    keyset: Keyset, key: Key, state: KeyState, at: datetime, spread: Readiness
) -> NextStep:
    if state is KeyState.ANNOUNCED:
        return NextStep.BRING
    if state is KeyState.STOPPED:
        return NextStep.DECIDE
    if state is not KeyState.ACTIVE:
        return NextStep.NOTHING
    signing = signing_keys(keyset, key.role, unix(at))
    if len(signing) > 1 and signing[-1].keyid == key.keyid:
        return NextStep.RETIRE if spread.is_complete else NextStep.WAIT
    has_successor = any(
        each.role == key.role and each.status == "active" and each.not_before_at > key.not_before_at
        for each in keyset.keys
    )
    is_old = at - _instant(key.not_before_at) > ROTATE_AFTER
    ends_soon = _instant(key.not_after_at) - at < timedelta(days=MOST_DAYS_LEFT)
    return NextStep.ROTATE if (is_old or ends_soon) and not has_successor else NextStep.NOTHING


def _keeper(row: SigningKey | None) -> str:
    return "" if row is None else row.uri.partition(":")[0]


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _license_use(context: Context) -> dict[str, _Use]:
    """Count the licenses each key signed; a license of two keys counts for both."""
    rows = context.session.execute(
        select(
            License.key_id,
            License.also_signed_by,
            func.count(),
            func.max(License.released_at, type_=License.released_at.type),
        )
        .where(License.released_at.is_not(None))
        .group_by(License.key_id, License.also_signed_by)
    )
    counts: dict[str, int] = {}
    last: dict[str, datetime] = {}
    for key_id, others, number, at in rows:
        assert key_id is not None, "a released license was signed"
        assert at is not None, "a released license was released"
        for each in (key_id, *others):
            counts[each] = counts.get(each, 0) + number
            last[each] = max(last.get(each, at), at)
    return {each: _Use(number, last[each]) for each, number in counts.items()}


def _span_use(context: Context, keyset: Keyset) -> dict[str, _Use]:
    """Count the bundles and leases of the time in which each key signed."""
    keys = [key for key in keyset.keys if key.role in ("lease", "revocation")]
    columns: list[ColumnElement[Any]] = []
    for key in keys:
        begins, ends = _instant(key.not_before_at), _instant(key.not_after_at)
        if key.role == "lease":
            within = Lease.issued_at.between(begins, ends)
            first = select(Lease.number).where(within).order_by(Lease.issued_at).limit(1)
            last = select(Lease.number).where(within).order_by(Lease.issued_at.desc()).limit(1)
            counted: ColumnElement[Any] = last.scalar_subquery() - first.scalar_subquery() + 1
            used = select(Lease.issued_at).where(within).order_by(Lease.issued_at.desc()).limit(1)
        else:
            within = Bundle.issued_at.between(begins, ends)
            counted = select(func.count()).select_from(Bundle).where(within).scalar_subquery()
            used = select(Bundle.issued_at).where(within).order_by(Bundle.version.desc()).limit(1)
        columns += [func.coalesce(counted, 0), used.scalar_subquery()]
    if not columns:
        return {}
    values = context.session.execute(select(*columns)).one()
    return {
        key.keyid: _Use(values[2 * place], values[2 * place + 1]) for place, key in enumerate(keys)
    }
