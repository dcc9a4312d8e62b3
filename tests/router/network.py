"""A WSGI application on a port of loopback, and what a network does to its answers."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from ssl import SSLContext
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

PIECE_BYTES = 500
PIECE_S = 0.02


@dataclass(frozen=True)
class Exchange:
    """One request that arrived, and the answer the application gave it, if it was asked."""

    path: str
    body: bytes
    status: int | None
    answer: bytes


Fault = Callable[["Passing"], Response]
"""Makes the answer to one request, or raises ConnectionError so that none is given."""


@dataclass
class Passing:
    """A request on its way."""

    network: "Network"
    request: Request
    body: bytes
    answered: Response | None = None

    def forward(self) -> Response:
        """Ask the application."""
        environ = {**self.request.environ, "wsgi.input": BytesIO(self.body)}
        content, status, headers = run_wsgi_app(self.network.app, environ)
        self.answered = Response(b"".join(content), status, headers)
        return self.answered


@dataclass
class Network:
    """Passes requests on; each fault is good for one request, the oldest first."""

    app: Any
    url: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    seen: list[Exchange] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        passing = Passing(self, request, request.get_data())
        fault = self.faults.popleft() if self.faults else Passing.forward
        try:
            return fault(passing)(environ, start_response)
        finally:
            answered = passing.answered
            self.seen.append(
                Exchange(
                    request.path,
                    passing.body,
                    None if answered is None else answered.status_code,
                    b"" if answered is None else answered.get_data(),
                )
            )


def lost_request(_: Passing) -> Response:
    """The request never arrives."""
    raise ConnectionResetError


def lost_answer(passing: Passing) -> Response:
    """The portal does what was asked, and its answer never arrives."""
    passing.forward()
    raise ConnectionResetError


def in_pieces(passing: Passing) -> Response:
    """The answer arrives piece by piece."""
    whole = passing.forward().get_data()
    assert passing.answered is not None

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(whole), PIECE_BYTES):
            threading.Event().wait(PIECE_S)
            yield whole[start : start + PIECE_BYTES]

    headers = passing.answered.headers
    return Response(pieces(), passing.answered.status, headers, direct_passthrough=True)


def instead(body: bytes | str, status: int, content_type: str, **headers: str) -> Fault:
    """Something in between answers, and the portal is never asked."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(body, status, named, content_type=content_type)


class Quiet(WSGIRequestHandler):
    """A handler that logs nothing, and hangs up where no answer is to be given."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Hang up."""
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing."""


@contextmanager
def serve(app: Any, tls: SSLContext | None = None) -> Iterator[Network]:
    """Serve an application on a free port of loopback while the block runs."""
    network = Network(app)
    server = make_server(
        "127.0.0.1", 0, network, threaded=True, request_handler=Quiet, ssl_context=tls
    )
    network.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield network
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
