"""Logs as JSON lines: one record a line, times in UTC, secrets blanked out.

A record has `at`, `level`, `logger` and `message`, everything the caller passed as `extra` (above
all `request_id`), and `error` with the traceback if there is one. JSON escapes line breaks, so a
record stays on one line. Callers never log bodies, queries, cookies or codes; secrets that slip
into a library's message (a request line, a key) are blanked out here.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_STRUCK: Final = "[struck out]"
_SECRETS: Final = (
    re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    re.compile(r"(?<=/reset-password/)[^\s\"'?#]+"),
    re.compile(r"(?<=/invites/)[^\s\"'?#]+"),
    re.compile(r"(?i)(?<=token=)[^\s\"'&]+"),
    re.compile(r"(?i)(?<=authorization: )[^\r\n]+"),
    re.compile(r"(?i)(?<=cookie: )[^\r\n]+"),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),
)


def strike_secrets(text: str) -> str:
    """Blank out what no log may contain: private keys, mailed tokens, passwords in URLs."""
    for pattern in _SECRETS:
        text = pattern.sub(_STRUCK, text)
    return text


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        # A wrong logging call must neither break the log's format nor put its arguments into it.
        text = str(record.msg)
    return strike_secrets(text)


def _at(record: logging.LogRecord) -> str:
    instant = datetime.fromtimestamp(record.created, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """Formats each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["error"] = strike_secrets(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class PlainLines(logging.Formatter):
    """Formats each record as text for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        more = " ".join(
            f"{name}={value}" for name, value in vars(record).items() if name not in _OWN
        )
        text = f"{_at(record)} {record.levelname.lower()} {record.name} {_message(record)} {more}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return strike_secrets(text)


def logging_config(level: str, *, plain: bool = False) -> dict[str, Any]:
    """Return the logging configuration of a process that logs to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        plain: text for a terminal instead of JSON.
    """
    formatter = PlainLines if plain else JsonLines
    own = {"handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "lines",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), **own},
            "gunicorn.access": {"level": "CRITICAL", **own},
            # At info it logs every look at the schema, and readiness probes look all the time.
            "alembic": {"level": "WARNING"},
        },
    }
