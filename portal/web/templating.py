"""What templates may call: assets, icons, times, numbers, statuses, form components.

Templates are strict: an undefined name is an error, not an empty string. Everything here depends
only on its arguments and the `now` given to `init_templating`.
"""

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from flask import Flask, Response, request
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from portal.domain.words import count, duration, feature_name
from portal.web import components

PRODUCT: Final = "Smart Router Licenses"
VENDOR: Final = "Metrum"

IMMUTABLE: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "public, no-cache"

_HASH_LENGTH: Final = 16
_COMPRESSED: Final = {".css", ".js", ".svg"}
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400

Tone = Literal["good", "warn", "bad", "info", "plain"]


class UnknownAsset(LookupError):
    """A template names a file that is not under the static folder."""


class Assets:
    """The static files, hashed and compressed once, when the application is created.

    A page refers to `/static/css/shell.css?v=<hash>`. The hash is part of the address, so the
    answer may be cached forever; an address without the current hash must be revalidated.
    """

    def __init__(self, folder: Path, url_path: str = "/static") -> None:
        self._url_path = url_path
        self._versions: dict[str, str] = {}
        self._compressed: dict[str, bytes] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                content = path.read_bytes()
                self._versions[name] = hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
                if path.suffix in _COMPRESSED:
                    self._compressed[name] = gzip.compress(content, mtime=0)

    def url(self, path: str) -> str:
        """Return the address of the static file at `path`.

        Raises:
            UnknownAsset: there is no such file.
        """
        try:
            version = self._versions[path]
        except KeyError:
            raise UnknownAsset(path) from None
        return f"{self._url_path}/{path}?v={version}"

    def cache_control(self, path: str, version: str | None) -> str:
        """Return the `Cache-Control` of an answer to `path?v=version`."""
        if version is not None and self._versions.get(path) == version:
            return IMMUTABLE
        return REVALIDATE

    def compress(self, response: Response) -> Response:
        """Send the compressed text of a static file to a browser that accepts it.

        Pages are not compressed here: they hold secrets beside text that others choose (BREACH).
        """
        name = (request.view_args or {}).get("filename", "")
        if request.endpoint != "static" or name not in self._compressed:
            return response
        response.vary.add("Accept-Encoding")
        if response.status_code == 200 and request.accept_encodings["gzip"]:
            response.close()
            response.direct_passthrough = False
            response.set_data(self._compressed[name])
            response.headers["Content-Encoding"] = "gzip"
            etag, _ = response.get_etag()
            if etag is not None:
                response.set_etag(etag, weak=True)
        return response


class Icons:
    """The inlined icons: Lucide's outlines, 24 units square, in the color of the text around."""

    def __init__(self, folder: Path) -> None:
        self._outlines = {
            path.stem: Markup(path.read_text().strip())  # noqa: S704 - our own files
            for path in folder.glob("*.svg")
        }

    def __call__(self, name: str, label: str | None = None) -> Markup:
        """Return the icon as SVG, hidden from assistive technology unless it has a `label`.

        Raises:
            LookupError: there is no icon of that name.
        """
        try:
            outline = self._outlines[name]
        except KeyError:
            raise LookupError(f"no icon {name!r} in templates/partials/icons/") from None
        voice = (
            Markup('aria-hidden="true"')
            if label is None
            else Markup('role="img" aria-label="{}"').format(label)
        )
        return Markup(
            '<svg class="icon" viewBox="0 0 24 24" width="18" height="18" fill="none"'
            ' stroke="currentColor" stroke-width="2" stroke-linecap="round"'
            ' stroke-linejoin="round" focusable="false" {}>{}</svg>'
        ).format(voice, outline)


@dataclass(frozen=True)
class Status:
    """How a state is shown: a word, an icon and a tone."""

    word: str
    tone: Tone
    icon: str


STATUSES: Final[dict[str, Status]] = {
    # licenses and entitlements
    "issuing": Status("Signing", "info", "circle-dashed"),
    "issued": Status("Issued", "good", "circle-check"),
    "active": Status("Active", "good", "circle-check"),
    "not-yet-valid": Status("Not valid yet", "info", "calendar-clock"),
    "expiring": Status("Expires soon", "warn", "clock"),
    "expired": Status("Expired", "bad", "circle-x"),
    "superseded": Status("Superseded", "plain", "history"),
    "suspended": Status("Suspended", "warn", "circle-pause"),
    "revoked": Status("Revoked", "bad", "shield-x"),
    "proposed": Status("Proposed", "info", "circle-dashed"),
    "live": Status("Live", "good", "circle-check"),
    "ended": Status("Ended", "plain", "circle-slash"),
    # requests
    "open": Status("Open", "info", "inbox"),
    "taken": Status("In review", "info", "eye"),
    "asked": Status("Waiting for the customer", "warn", "message-square"),
    "deferred": Status("Deferred", "plain", "clock"),
    "approved": Status("Approved", "good", "check"),
    "declined": Status("Declined", "bad", "x"),
    "withdrawn": Status("Withdrawn", "plain", "undo-2"),
    "ready-to-start": Status("Ready to start", "info", "circle-dot"),
    # instances and leases
    "waiting": Status("Waiting for first check-in", "info", "circle-dashed"),
    "serving": Status("Serving", "good", "radio-tower"),
    "overdue": Status("Renewal overdue", "warn", "clock"),
    "in-grace": Status("In grace", "warn", "timer"),
    "lapsed": Status("Lease lapsed", "bad", "circle-x"),
    "forked": Status("Copy suspected", "bad", "git-fork"),
    "released": Status("Released", "plain", "undo-2"),
    "retired": Status("Retired", "plain", "circle-slash"),
    # mails and jobs
    "queued": Status("Queued", "info", "clock"),
    "sent": Status("Sent", "good", "check"),
    "failed": Status("Failed", "bad", "circle-x"),
    # people
    "confirmed": Status("Confirmed", "good", "check"),
    "unconfirmed": Status("Not confirmed", "warn", "mail"),
    "invited": Status("Invited", "info", "mail"),
    "disabled": Status("Disabled", "bad", "ban"),
    # keys
    "added": Status("Not published", "plain", "circle-dashed"),
    "announced": Status("Announced", "info", "circle-dashed"),
    "compromised": Status("Compromised", "bad", "shield-alert"),
    "stopped": Status("Signs nothing", "warn", "triangle-alert"),
    # acts
    "pending": Status("Waiting for a second person", "info", "circle-dashed"),
    "returned": Status("Returned to its first person", "warn", "triangle-alert"),
    "done": Status("Done", "good", "circle-check"),
    # health
    "well": Status("Healthy", "good", "circle-check"),
    "degraded": Status("Needs attention", "warn", "triangle-alert"),
    "failing": Status("Failing", "bad", "circle-x"),
    "unknown": Status("Unknown", "plain", "circle-help"),
}


def utc(at: datetime) -> datetime:
    """Return the instant in UTC.

    Raises:
        ValueError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be shown")
    return at.astimezone(UTC)


def iso(at: datetime) -> str:
    """Return RFC 3339 in UTC, to the second."""
    return utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(at: datetime, *, seconds: bool = False) -> str:
    """Return an instant as people read it: `23 Nov 2026, 20:12 UTC`."""
    moment = utc(at)
    clock = moment.strftime("%H:%M:%S" if seconds else "%H:%M")
    return f"{moment.day} {moment:%b %Y}, {clock} UTC"


def relative(at: datetime, now: datetime) -> str:
    """Return `in 3 days` or `20 minutes ago`. static/js/portal.js says the same words."""
    seconds = int((utc(at) - utc(now)).total_seconds())
    size = abs(seconds)
    if size < 5:
        return "now"
    if size >= 2 * _DAY_S:
        amount, unit = size // _DAY_S, "day"
    elif size >= 2 * _HOUR_S:
        amount, unit = size // _HOUR_S, "hour"
    elif size >= _MINUTE_S:
        amount, unit = size // _MINUTE_S, "minute"
    else:
        amount, unit = size, "second"
    phrase = count(amount, unit)
    return f"in {phrase}" if seconds > 0 else f"{phrase} ago"


def number(value: float) -> str:
    """Return the number with separated thousands: `1,000,000`."""
    return f"{value:,}"


def compact(value: int) -> str:
    """Return `1M`, `2.5M` or `40k` if that is exact, otherwise all digits."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if value >= size:
            tenths, rest = divmod(value * 10, size)
            if rest == 0:
                return f"{tenths // 10:,}{f'.{tenths % 10}' if tenths % 10 else ''}{letter}"
            break
    return number(value)


def file_size(size: int) -> str:
    """Return a size in bytes as people read it, in powers of ten: `1,412 bytes`, `14.2 KB`."""
    if size < 10_000:
        return count(size, "byte")
    if size < 1_000_000:
        return f"{size / 1_000:.1f} KB"
    return f"{size / 1_000_000:.1f} MB"


@dataclass(frozen=True)
class TimeElements:
    """Writes `<time>` elements as of one clock reading per call."""

    now: Callable[[], datetime]

    def __call__(
        self,
        at: datetime,
        form: Literal["full", "line", "relative"] = "full",
        *,
        seconds: bool = False,
    ) -> Markup:
        """Return an instant: UTC, relative to now, and local if scripts run.

        Args:
            at: the instant, aware.
            form: `full` for facts, with local time beside it; `line` within a sentence or a table;
                `relative` if the phrase is enough, with UTC as its title.
            seconds: whether the second matters, as for expiry.
        """
        phrase = relative(at, self.now())
        shown = instant(at, seconds=seconds)
        stamp = iso(at)
        if form == "relative":
            return Markup('<time datetime="{0}" title="{1}" data-relative="{0}">{2}</time>').format(
                stamp, shown, phrase
            )
        if form == "line":
            return Markup(
                '<time datetime="{0}" data-local>{1}</time>'
                ' <span class="muted">(<span data-relative="{0}">{2}</span>)</span>'
            ).format(stamp, shown, phrase)
        return Markup(
            '<span class="instant"><time datetime="{0}" data-local>{1}</time>'
            ' <span class="instant__beside"><span data-relative="{0}">{2}</span>'
            "<span data-local-time hidden></span></span></span>"
        ).format(stamp, shown, phrase)

    def countdown(self, at: datetime) -> Markup:
        """Return the time left until `at`, counting down if scripts run."""
        left = max(0, int((utc(at) - utc(self.now())).total_seconds()))
        return Markup('<span class="number" data-countdown="{}">{}</span>').format(
            iso(at), duration(left)
        )


def init_templating(
    app: Flask, *, now: Callable[[], datetime], templates: Path, static: Path
) -> Assets:
    """Give `app` its template loader, globals and filters; return the static files' addresses.

    Args:
        app: the application.
        now: reads the clock; called whenever a page is rendered.
        templates: the folder of templates.
        static: the folder of static files.
    """
    assets = Assets(static, app.static_url_path or "/static")
    app.after_request(assets.compress)
    icons = Icons(templates / "partials" / "icons")
    times = TimeElements(now)

    def status_tag(state: str, word: str | None = None) -> Markup:
        """Return a state as icon and word. `word` replaces the usual one.

        Raises:
            KeyError: the state is missing from STATUSES.
        """
        status = STATUSES[state]
        return Markup('<span class="status status--{}">{}{}</span>').format(
            status.tone, icons(status.icon), word or status.word
        )

    app.jinja_options = {**app.jinja_options, "trim_blocks": True, "lstrip_blocks": True}
    environment = app.jinja_env
    environment.undefined = StrictUndefined
    environment.loader = FileSystemLoader(templates)
    environment.globals.update(
        PRODUCT=PRODUCT,
        VENDOR=VENDOR,
        asset=assets.url,
        icon=icons,
        status_tag=status_tag,
        time_element=times,
        countdown=times.countdown,
        clock_now=lambda: iso(now()),
        way_back=way_back,
        has_page=lambda path: _has_page(app, path),
        component=components.component,
        form_field=components.form_field,
        error_summary=components.error_summary,
    )
    environment.filters.update(
        count=count,
        compact=compact,
        duration=duration,
        feature_name=feature_name,
        file_size=file_size,
        instant=instant,
        iso=iso,
        number=number,
        paragraphs=paragraphs,
    )
    return assets


def _has_page(app: Flask, path: str) -> bool:
    """Say whether this process serves a page at `path`; surfaces can be switched off."""
    return app.url_map.bind("localhost").test(path, method="GET")


def way_back() -> str | None:
    """Return the path of the page to open again after a refusal: this one, or the form's."""
    if request.method in ("GET", "HEAD"):
        path = request.path
    else:
        referrer = urlsplit(request.headers.get("Referer", ""))
        if referrer.netloc != request.environ.get("HTTP_HOST"):
            return None
        path = referrer.path
    # Two slashes would name another host.
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else None


def paragraphs(text: str) -> Markup:
    """Return plain text as paragraphs, split at blank lines; markup in it is inert."""
    blocks = [block.strip() for block in text.replace("\r\n", "\n").split("\n\n")]
    return Markup("").join(
        Markup("<p>{}</p>").format(Markup("<br>").join(escape(line) for line in block.split("\n")))
        for block in blocks
        if block
    )
