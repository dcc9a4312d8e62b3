"""The one seam to the network: a POST of a signed request, and what came back.

Sends over TLS, or in clear to loopback. Follows no redirects. An answer counts only as JSON of the
expected kind or as a problem document; everything else (a proxy's page, a redirect, a 5xx) is
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
_PLACE: Final = re.compile(
    r"https://[^\s/?#@]+|http://(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]{1,5})?"
)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    content_type: str
    body: bytes


class Fetch(Protocol):
    """Sends a body to a path of the portal."""

    def __call__(self, path: str, body: bytes) -> Answer:
        """Send.

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
        """Refuse to send enrollment codes in clear."""
        if not _PLACE.fullmatch(self.origin):
            raise UsageError(
                f"requests go to https://HOST without a path, or to http:// on loopback; "
                f"not to {self.origin!r}"
            )

    def __call__(self, path: str, body: bytes) -> Answer:
        """Send.

        Raises:
            Unreachable: nothing came back.
            RouterError: the CA file cannot be used, or the HTTP library is not installed.
        """
        try:
            import aiohttp
        except ModuleNotFoundError as error:
            raise RouterError(
                "this needs the package aiohttp: install smart-router-licenses[router]"
            ) from error
        try:
            return asyncio.run(self._post(aiohttp, path, body))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{self.origin} does not answer: {reason}") from error

    async def _post(self, aiohttp: Any, path: str, body: bytes) -> Answer:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=self._tls())
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            session.post(
                self.origin + path,
                data=body,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                allow_redirects=False,
            ) as response,
        ):
            data = bytearray()
            # One read gives what has arrived, which need not be all.
            async for part in response.content.iter_any():
                data += part
                if len(data) > MAX_ANSWER_BYTES:
                    break
            return Answer(response.status, response.content_type, bytes(data))

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RouterError(f"cannot use the CA file {self.ca_file}: {error}") from error


def require_answer(answer: Answer, wanted: int) -> bytes:
    """Return the body of the wanted answer.

    Raises:
        Refused: the portal refused, by a problem document.
        Unreachable: anything else, which says nothing about the lease.
    """
    if len(answer.body) > MAX_ANSWER_BYTES:
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
    """Accept the answer that has nothing to say: 204.

    Raises:
        Refused, Unreachable: see `require_answer`.
    """
    if answer.status != 204 or answer.body:
        require_answer(answer, 204)


def _problem(body: bytes) -> Refused | None:
    try:
        value = parse_json(body, max_bytes=MAX_ANSWER_BYTES)
        code, detail = str(value["code"]), str(value["detail"])
        status, next_action = int(value["status"]), str(value["next_action"])
    except (LicensingError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return Refused(detail, code=code, status=status, next_action=next_action)
