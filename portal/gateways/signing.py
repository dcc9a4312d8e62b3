"""Signers behind a URI, and creating keys: the only module of the portal with private keys.

`file:NAME` is a PEM file (PKCS#8, encrypted with the key passphrase), with mode 0600 and owned by
this process's user. It lies in the role's own folder of the key directory (`keys/lease/`) if there
is one, otherwise in the key directory itself. Other schemes could keep a key elsewhere.

Invariants: a process can use only the roles it was wired for. A file is opened only if its name
has the expected role and key id, and used only if it holds that key. So changing a role or a URI in
the database cannot make a process open another role's key.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from licensing.keys import key_id
from licensing.names import ROLES
from portal.domain.ports import NewKey, Signer, SignerUnavailable


class KeySigner:
    """A private key in this process's memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._keyid = key_id(_raw_public(key))

    @property
    def keyid(self) -> str:
        """The key id: 64 lower-case hex digits."""
        return self._keyid

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"KeySigner({self._keyid})"


class SignerDirectory:
    """Opens signers by their URI, only for some roles, and keeps them open."""

    def __init__(self, directory: Path, passphrase: bytes, roles: Iterable[str]) -> None:
        self._directory = directory
        self._passphrase = passphrase
        self._roles = frozenset(roles)
        self._open: dict[tuple[str, str], KeySigner] = {}

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        """Return the signer behind `uri`.

        Raises:
            SignerUnavailable: this process does not hold the role, the scheme is unknown, the
                file's name is of another role or key, the file cannot be read or is not private,
                or it holds another key than `keyid`.
        """
        if role not in self._roles:
            raise SignerUnavailable(f"this process does not hold {role} keys")
        held = self._open.get((role, keyid))
        if held is not None:
            return held
        scheme, _, name = uri.partition(":")
        if scheme != "file":
            raise SignerUnavailable(f"no signer for {scheme}: keys; use file:NAME")
        _require_name_of(role, name, keyid)
        signer = KeySigner(self._load(self._directory_of(role) / name))
        if signer.keyid != keyid:
            raise SignerUnavailable(f"{uri} holds key {signer.keyid}, not {keyid}")
        self._open[role, keyid] = signer
        return signer

    def make(self, role: str) -> NewKey:
        """Create a key pair and write its private half, encrypted, to a new file.

        Raises:
            SignerUnavailable: this process may not hold such keys, or cannot write the file.
        """
        if role not in self._roles:
            raise SignerUnavailable(f"this process does not make {role} keys")
        key = Ed25519PrivateKey.generate()
        public = _raw_public(key)
        name = _file_name(role, key_id(public))
        pem = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self._passphrase)
        )
        directory = self._directory_of(role)
        path = directory / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            _sync(directory)
        except OSError as error:
            raise SignerUnavailable(f"cannot write {path}: {error.strerror}") from error
        return NewKey(public, f"file:{name}")

    def _directory_of(self, role: str) -> Path:
        """Return where the role's keys are: in its own folder if the operator made one."""
        own = self._directory / role
        return own if own.is_dir() else self._directory

    def _load(self, path: Path) -> Ed25519PrivateKey:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise SignerUnavailable(f"cannot open {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o177:
                raise SignerUnavailable(f"{path} has mode {mode:04o}; chmod 600 it")
            if status.st_uid != os.geteuid():
                raise SignerUnavailable(f"{path} belongs to user {status.st_uid}; chown it")
            pem = file.read()
        try:
            key = load_pem_private_key(pem, self._passphrase)
        except (ValueError, TypeError):
            # The library's message may quote the file; ours must not.
            raise SignerUnavailable(f"{path} does not open with the key passphrase") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SignerUnavailable(f"{path} does not hold an Ed25519 key")
        return key


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _file_name(role: str, keyid: str) -> str:
    """Return the name of a key's file: its role and the first digits of its key id."""
    return f"{role}-{keyid[:16]}.pem"


def _require_name_of(role: str, name: str, keyid: str) -> None:
    """Require that a file's name has this role and this key id, before anything is opened."""
    if not name or "/" in name or name.startswith("."):
        raise SignerUnavailable(f"{name!r} is not the name of a file in the key directory")
    expected = _file_name(role, keyid)
    if name == expected:
        return
    named_role = name.partition("-")[0]
    if named_role != role and named_role in ("root", *ROLES):
        raise SignerUnavailable(f"{name} is no {role} key: by its name it is a {named_role} key")
    raise SignerUnavailable(f"{name} is not the file of key {keyid}; that is called {expected}")


def _sync(directory: Path) -> None:
    """Make a new file's name durable, because the database will refer to it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
