"""A mail server on loopback that keeps what it is given, and can be told to refuse."""

import base64
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Post:
    """What the server offers, and what it was given."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    refuse: dict[str, str] = field(default_factory=dict)
    """An answer to give to a command instead of the usual one; `hang up` ends the connection."""
    taken: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[tuple[str, str, bool]] = field(default_factory=list)
    """User, password, and whether they came over TLS."""
    commands: list[str] = field(default_factory=list)

    @property
    def message(self) -> EmailMessage:
        """The one message that was taken."""
        (raw,) = self.taken
        message = message_from_bytes(raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


class _Session(socketserver.StreamRequestHandler):
    server: "_Server"
    secure = False

    def handle(self) -> None:
        post = self.server.post
        try:
            if post.implicit_tls:
                self._secure()
            self._say("220 ready")
            while line := self.rfile.readline():
                if not self._answer(line.decode().strip()):
                    return
        except (ssl.SSLError, ConnectionError):
            return

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.wfile.write(f"{line}\r\n".encode())

    def _secure(self) -> None:
        assert self.server.post.tls is not None
        self.connection = self.server.post.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined]
        self.secure = True

    def _answer(self, line: str) -> bool:
        post, verb = self.server.post, line.split(maxsplit=1)[0].upper()
        post.commands.append(verb)
        if verb in post.refuse:
            if post.refuse[verb] == "hang up":
                return False
            self._say(post.refuse[verb])
        elif verb == "EHLO":
            offers = ["loopback", "AUTH PLAIN"]
            if post.tls is not None and not self.secure:
                offers.append("STARTTLS")
            self._say(*(f"250-{offer}" for offer in offers), "250 8BITMIME")
        elif verb == "STARTTLS":
            self._say("220 go ahead")
            self._secure()
        elif verb == "AUTH":
            _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
            post.logins.append((user, password, self.secure))
            self._say("235 welcome")
        elif verb == "RCPT":
            post.recipients.append(line.partition(":")[2].strip("<>"))
            self._say("250 ok")
        elif verb == "DATA":
            self._say("354 go on")
            lines = iter(self.rfile.readline, b".\r\n")
            post.taken.append(b"".join(line.removeprefix(b".") for line in lines))
            self._say("250 taken")
        elif verb == "QUIT":
            self._say("221 bye")
            return False
        else:
            self._say("250 ok")
        return True

    def finish(self) -> None:
        super().finish()
        self.connection.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, post: Post) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.post = post


@contextmanager
def receiving(post: Post) -> Iterator[Post]:
    """Take mail on a free port of loopback while the block runs."""
    with _Server(post) as server:
        post.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield post
        finally:
            server.shutdown()
            thread.join()
