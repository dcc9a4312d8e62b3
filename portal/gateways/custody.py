"""What a signer keeps for itself: its `seal` key, and the last keyset and bundle it knows.

Both lie in the key directory, out of the database's reach. What is remembered are signed documents:
`last-keyset.json` and `last-bundle.json`.

Invariants: a remembered document is replaced in one step, and is durable before anything that
depends on it is published. A process that serves HTTP has neither key nor memory.
"""

import os
from pathlib import Path
from typing import Final, NoReturn

from licensing.keys import PublicKey
from portal.domain.ports import SealSignature, SignerUnavailable
from portal.gateways.signing import SignerDirectory

SEAL: Final = "seal"


class FileCustody:
    """Seal keys and memory in the key directory."""

    def __init__(self, directory: Path, signers: SignerDirectory) -> None:
        self._directory = directory
        self._signers = signers

    @property
    def has_seal(self) -> bool:
        """Whether there is a seal key."""
        return bool(self._signers.held(SEAL))

    def make_seal(self) -> bool:
        """Make a seal key where there is none yet; say whether one was made.

        Raises:
            SignerUnavailable: this process may not hold one, or cannot write it.
        """
        if self.has_seal:
            return False
        self._signers.make(SEAL)
        return True

    def seal(self, message: bytes) -> SealSignature:
        """Sign with the newest seal key.

        Raises:
            SignerUnavailable: this process does not hold one.
        """
        held = self._signers.held(SEAL)
        if not held:
            raise SignerUnavailable("there is no seal key; run `portal keys init`")
        return SealSignature(held[-1].keyid, held[-1].sign(message))

    def is_sealed(self, message: bytes, signature: SealSignature) -> bool:
        """Say whether one of the seal keys made this signature.

        Raises:
            SignerUnavailable: this process does not hold any.
        """
        held = self._signers.held(SEAL)
        if not held:
            raise SignerUnavailable("there is no seal key; run `portal keys init`")
        return any(
            key.keyid == signature.keyid
            and PublicKey(key.public_key).verify(signature.sig, message)
            for key in held
        )

    def recall(self, name: str) -> bytes | None:
        """Return the document that was kept under a name; None when none was.

        Raises:
            SignerUnavailable: it cannot be read.
        """
        path = self._path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SignerUnavailable(f"cannot read {path}: {error.strerror}") from error

    def keep(self, name: str, document: bytes) -> None:
        """Keep a document under a name, in place of the one before; durable on return.

        Raises:
            SignerUnavailable: it cannot be written.
        """
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SignerUnavailable(f"cannot write {path}: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self._directory / f"last-{name}.json"


class NoCustody:
    """For processes that serve HTTP: every question is refused."""

    def seal(self, message: bytes) -> NoReturn:
        """Refuse."""
        self._refuse(message)

    def is_sealed(self, message: bytes, signature: SealSignature) -> NoReturn:
        """Refuse."""
        self._refuse(message, signature)

    def recall(self, name: str) -> NoReturn:
        """Refuse."""
        self._refuse(name)

    def keep(self, name: str, document: bytes) -> NoReturn:
        """Refuse."""
        self._refuse(name, document)

    def _refuse(self, *_asked: object) -> NoReturn:
        raise SignerUnavailable("this process does not hold the seal key")
