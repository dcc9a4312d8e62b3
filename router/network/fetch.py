"""The only access to the network: POST a signed request, GET a document, return the answer.

Uses TLS, or plain HTTP on loopback. Follows no redirects. Only JSON of the expected kind or a
problem document counts as an answer; anything else (a proxy's page, a redirect, a 5xx) is
`Unreachable`.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from licensing.encoding import parse_json
from licensing.errors import LicensingError
from router.errors import Refused, RouterError, Unreachable, UsageError

TIMEOUT_S: Final = 30
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_WAIT_S: Final = 86_400
"""The longest `Retry-After` that is honored."""
_PLACE: Final = re.compile(
    r"https://[^\s/?#@]+|http://(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]{1,5})?"
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes
    retry_after: str | None = None
    """The header, unparsed."""


class Fetch(Protocol):
    """Sends a body to a path of the portal, or fetches the path if there is no body."""

    def __call__(self, path: str, body: bytes | None, max_bytes: int = MAX_ANSWER_BYTES) -> Answer:
        """Send; an answer longer than `max_bytes` is cut somewhere above that length.

        Raises:
            Unreachable: nothing came back.
        """
        ...


@dataclass(frozen=True)
class HttpFetch:
    """Sends over HTTP(S) to one origin.

    Raises:
        UsageError: the origin is not https://HOST, nor http:// on loopback.
    """

    origin: str
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse to send enrollment codes unencrypted."""
        if not _PLACE.fullmatch(self.origin):
            raise UsageError(
                f"requests go to https://HOST without a path, or to http:// on loopback; "
                f"not to {self.origin!r}"
            )

    def __call__(self, path: str, body: bytes | None, max_bytes: int = MAX_ANSWER_BYTES) -> Answer:
        """Send.

        Raises:
            Unreachable: nothing came back.
            RouterError: the CA file cannot be used, or the HTTP library is not installed.
        """
        try:
            import aiohttp  # noqa: PLC0415 -- commands that send nothing do not wait for it
        except ModuleNotFoundError as error:
            raise RouterError(
                "this needs the package aiohttp: install smart-router-licenses[router]"
            ) from error
        try:
            return asyncio.run(self._send(aiohttp, path, body, max_bytes))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{self.origin} does not answer: {reason}") from error

    async def _send(self, aiohttp: Any, path: str, body: bytes | None, max_bytes: int) -> Answer:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=self._tls())
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            session.request(
                "GET" if body is None else "POST",
                self.origin + path,
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as response,
        ):
            data = bytearray()
            # One read gives what has arrived, which need not be all.
            async for part in response.content.iter_any():
                data += part
                if len(data) > max_bytes:
                    break
            waits = response.headers.get("Retry-After")
            return Answer(response.status, response.content_type, bytes(data), waits)

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RouterError(f"cannot use the CA file {self.ca_file}: {error}") from error


def require_answer(answer: Answer, wanted: int, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    """Return the body of an answer with the wanted status.

    Raises:
        Refused: the portal refused, by a problem document.
        Unreachable: anything else, which says nothing about the lease.
    """
    try:
        return _require_answer(answer, wanted, max_bytes)
    except (Refused, Unreachable) as error:
        error.retry_after_s = parse_retry_after(answer.retry_after)
        raise


def parse_retry_after(text: str | None) -> int | None:
    """Return how many seconds to wait, 24 hours at most; None if the header does not say.

    Only seconds are understood: a date would depend on a clock that may be wrong.
    """
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:9]), MAX_WAIT_S)


def _require_answer(answer: Answer, wanted: int, max_bytes: int) -> bytes:
    if len(answer.body) > max_bytes:
        raise Unreachable("the answer is too long to be the portal's")
    if answer.status == wanted and answer.content_type == "application/json":
        return answer.body
    problem = _problem(answer.body) if answer.content_type == "application/problem+json" else None
    if problem is not None and 400 <= answer.status < 500:
        raise problem
    if problem is not None:
        raise Unreachable(f"the portal cannot answer now: {problem.message}")
    if 300 <= answer.status < 400:
        raise Unreachable(f"a redirect ({answer.status}) came back; none is followed")
    raise Unreachable(
        f"status {answer.status} with {answer.content_type} came back, not the portal's answer"
    )


def require_done(answer: Answer) -> None:
    """Accept an empty 204 answer.

    Raises:
        Refused, Unreachable: see `require_answer`.
    """
    if answer.status != 204 or answer.body:
        require_answer(answer, 204)


def _problem(body: bytes) -> Refused | None:
    if len(body) > MAX_ANSWER_BYTES:
        return None
    try:
        value = parse_json(body, max_bytes=MAX_ANSWER_BYTES)
        code, detail = str(value["code"]), str(value["detail"])
        status, next_action = int(value["status"]), str(value["next_action"])
    except (LicensingError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return Refused(detail, code=code, status=status, next_action=next_action)
