"""Mail: renders templates, and hands messages to an SMTP server or writes them to a directory.

Every message has `Auto-Submitted: auto-generated`. Header values are single lines: the standard
library's policy refuses line breaks in them.
"""

import re
import smtplib
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from urllib.parse import unquote, urlsplit

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from portal.domain.ports import Clock, Mail, MailUndelivered, Randomness, Rendered
from portal.domain.words import count
from portal.resources import TEMPLATES

_TIMEOUT_S = 15


class JinjaMailTemplates:
    """Renders `templates/email/<name>/{subject.txt,body.txt,body.html}`."""

    def __init__(self, origin: str, templates: Path = TEMPLATES) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(origin=origin, day=day, left=left)
        self._environment.filters["instant"] = instant
        # What depends on the reader's screen cannot be inlined and stays.
        self._inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)

    def render(self, template: str, facts: Mapping[str, object]) -> Rendered:
        """Render the three parts of a mail."""
        parts = [
            self._environment.get_template(f"email/{template}/{part}").render(facts)
            for part in ("subject.txt", "body.txt", "body.html")
        ]
        subject = " ".join(parts[0].split())
        return Rendered(subject, parts[1].strip() + "\n", self._inliner.inline(parts[2]))


def instant(text: str) -> str:
    """Return an ISO 8601 time as a person would write it, in UTC."""
    at = datetime.fromisoformat(text).astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def day(text: str) -> str:
    """Return an ISO 8601 time with its day of the week: `Thursday, 3 Dec 2026, 14:05 UTC`."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%A}, {instant(text)}"


def left(until: str, at: str) -> str:
    """Return the time from one ISO 8601 time to another, rounded: `7 days`, `24 hours`."""
    seconds = max(0.0, (datetime.fromisoformat(until) - datetime.fromisoformat(at)).total_seconds())
    if seconds < 3600:
        return count(max(1, round(seconds / 60)), "minute")
    if seconds < 48 * 3600:
        return count(round(seconds / 3600), "hour")
    return count(round(seconds / 86400), "day")


def make_message(mail: Mail, sender: str, clock: Clock) -> EmailMessage:
    """Build the MIME message.

    Raises:
        ValueError: a header contains a line break.
    """
    message = EmailMessage()
    message["From"] = sender
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip("> ") or None)
    message["Auto-Submitted"] = "auto-generated"
    for name, value in mail.headers.items():
        message[name] = value
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


class SmtpMailer:
    """Hands messages to one SMTP server, over TLS if the server offers it."""

    def __init__(self, url: str, password: str | None, sender: str, clock: Clock) -> None:
        parts = urlsplit(url)
        self._implicit_tls = parts.scheme == "smtps"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (465 if self._implicit_tls else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = password
        self._sender = sender
        self._clock = clock

    def send(self, mail: Mail) -> None:
        """Deliver `mail`.

        Raises:
            MailUndelivered: the server did not accept it; try again later.
        """
        message = make_message(mail, self._sender, self._clock)
        try:
            with self._connect() as server:
                if self._user is not None and self._password is not None:
                    server.login(self._user, self._password)
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise MailUndelivered(f"{self._host}: {type(error).__name__}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._implicit_tls:
            return smtplib.SMTP_SSL(self._host, self._port, timeout=_TIMEOUT_S, context=context)
        server = smtplib.SMTP(self._host, self._port, timeout=_TIMEOUT_S)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
        elif self._user is not None:
            server.close()
            raise smtplib.SMTPNotSupportedError("the server offers no TLS; no password is sent")
        return server


class DirectoryMailer:
    """Writes each message to a file, for development."""

    def __init__(self, directory: Path, sender: str, clock: Clock, randomness: Randomness) -> None:
        self._directory = directory
        self._sender = sender
        self._clock = clock
        self._randomness = randomness

    def send(self, mail: Mail) -> None:
        """Write `mail` to `<time>-<random>-<address>.eml`.

        Raises:
            MailUndelivered: the directory cannot be written.
        """
        message = make_message(mail, self._sender, self._clock)
        stamp = self._clock.now().strftime("%Y%m%dT%H%M%S.%f")
        address = re.sub(r"[^a-z0-9@.+-]", "_", mail.to)
        name = f"{stamp}-{self._randomness.token(4).hex()}-{address[:100]}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # Readers look for .eml, so they never see half a message.
            unfinished = self._directory / f"{name}.part"
            unfinished.write_bytes(message.as_bytes())
            unfinished.rename(self._directory / f"{name}.eml")
        except OSError as error:
            raise MailUndelivered(f"{self._directory}: {error.strerror}") from error
