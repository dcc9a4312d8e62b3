"""Staff's page of revocation bundles: the current one, what the next one changes, those kept."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle, RevocationEntry
from portal.db.bundles import Bundle, latest_bundle
from portal.domain.errors import NotFound
from portal.services.audit import record
from portal.services.bundles import wanted_entries
from portal.services.context import Context
from portal.services.jobs import enqueue
from portal.services.keys import unix

PUBLISH_BUNDLE = "publish-bundle"
MOST_LISTED = 60


@dataclass(frozen=True)
class KeptBundle:
    """A published bundle in a list."""

    version: int
    issued_at: datetime
    expires_at: datetime
    key_id: str


@dataclass(frozen=True)
class Difference:
    """One entry that the next bundle says otherwise; `before` or `after` is None where absent."""

    license_id: str
    before: RevocationEntry | None
    after: RevocationEntry | None


@dataclass(frozen=True, kw_only=True)
class BundlesPage:
    """What staff see of bundles."""

    shown: KeptBundle | None
    """The one whose entries are shown; None before the first."""
    is_current: bool
    entries: tuple[RevocationEntry, ...]
    differences: tuple[Difference, ...]
    """From the current one to the next."""
    kept: tuple[KeptBundle, ...]


def bundles_page(context: Context, version: int | None = None) -> BundlesPage:
    """Return the current bundle, or the one of a version, with what the next one changes.

    Raises:
        NotFound: no bundle of this version is kept.
    """
    current = latest_bundle(context.session)
    shown = current if version is None else context.session.get(Bundle, version)
    if version is not None and shown is None:
        raise NotFound(f"There is no bundle {version}.")
    columns = (Bundle.version, Bundle.issued_at, Bundle.expires_at, Bundle.key_id)
    kept = context.session.execute(
        select(*columns).order_by(Bundle.version.desc()).limit(MOST_LISTED)
    )
    return BundlesPage(
        shown=None
        if shown is None
        else KeptBundle(shown.version, shown.issued_at, shown.expires_at, shown.key_id),
        is_current=shown is current,
        entries=_entries(shown),
        differences=_differences(_entries(current), wanted_entries(context)),
        kept=tuple(KeptBundle(*row) for row in kept),
    )


def ask_for_bundle(context: Context) -> None:
    """Have the worker, which holds the key, publish a bundle now."""
    enqueue(context, PUBLISH_BUNDLE, str(unix(context.at)))
    record(context, "bundle.publishing-asked", "bundle", "next")


def _entries(bundle: Bundle | None) -> tuple[RevocationEntry, ...]:
    if bundle is None:
        return ()
    return tuple(RevocationBundle.parse(Envelope.parse(bundle.envelope).payload).entries)


def _differences(
    current: tuple[RevocationEntry, ...], coming: tuple[RevocationEntry, ...]
) -> tuple[Difference, ...]:
    before = {each.license_id: each for each in current}
    after = {each.license_id: each for each in coming}
    return tuple(
        Difference(each, before.get(each), after.get(each))
        for each in sorted(before.keys() | after.keys())
        if before.get(each) != after.get(each)
    )
