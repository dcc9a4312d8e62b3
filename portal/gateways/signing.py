"""Signers behind a URI, and creating keys: the only module of the portal with private keys.

`file:NAME` is a PEM file (PKCS#8, encrypted with the key passphrase), with mode 0600 and owned by
this process's user. It lies in the role's own folder of the key directory (`keys/lease/`) if there
is one, otherwise in the key directory itself. The other schemes leave the key with a keeper, see
`portal/gateways/signers/`.

Invariants: a process can use only the roles it was wired for. In every scheme the key's name begins
with its role, and a key is used only if it has the expected key id; a file's name has the key id
too and is checked before the file is opened. So changing a role or a URI in the database cannot
make a process use another role's key. A keeper's signature is verified before anybody gets it.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from licensing.envelope import SIGNATURE_BYTES
from licensing.errors import MalformedPayload
from licensing.keys import PublicKey, key_id
from licensing.names import ROLES
from portal.domain.keys import SHORT_MESSAGE_BYTES, misfit
from portal.domain.ports import NewKey, Signer, SignerUnavailable
from portal.gateways.signers import KeptKey

Keepers = Mapping[str, Callable[[str], KeptKey]]
"""How to open a key by the rest of its URI, by scheme."""


class KeySigner:
    """A private key in this process's memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._keyid = key_id(_raw_public(key))

    @property
    def keyid(self) -> str:
        """The key id: 64 lower-case hex digits."""
        return self._keyid

    @property
    def public_key(self) -> bytes:
        """The public half: 32 raw bytes."""
        return _raw_public(self._key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"KeySigner({self._keyid})"


class KeptSigner:
    """A private key with a keeper; what it signs is verified here."""

    def __init__(self, key: KeptKey, public: PublicKey, most_bytes: int | None) -> None:
        self._key = key
        self._public = public
        self._most_bytes = most_bytes

    @property
    def keyid(self) -> str:
        """The key id: 64 lower-case hex digits."""
        return self._public.keyid

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`.

        Raises:
            SignerUnavailable: the message is too long for this keeper, or the keeper does not
                answer, refuses, or gives something else than this key's signature.
        """
        if self._most_bytes is not None and len(message) > self._most_bytes:
            raise SignerUnavailable(
                f"{self._key.name} signs messages of at most {self._most_bytes} bytes; this one "
                f"has {len(message)}"
            )
        signature = self._key.sign(message)
        if len(signature) != SIGNATURE_BYTES or not self._public.verify(signature, message):
            raise SignerUnavailable(f"{self._key.name} gave a signature that does not verify")
        return signature

    def __repr__(self) -> str:
        return f"KeptSigner({self.keyid})"


def _require_fitting(role: str, uri: str) -> None:
    why = misfit(role, uri)
    if why is not None:
        raise SignerUnavailable(why)


class SignerDirectory:
    """Opens signers by their URI, only for some roles, and keeps them open."""

    def __init__(
        self,
        directory: Path,
        passphrase: bytes,
        roles: Iterable[str],
        keepers: Keepers = MappingProxyType({}),
    ) -> None:
        self._directory = directory
        self._passphrase = passphrase
        self._roles = frozenset(roles)
        self._keepers = keepers
        self._own: dict[tuple[str, str], KeySigner] = {}
        self._open: dict[tuple[str, str], Signer] = {}

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
        _require_fitting(role, uri)
        if scheme == "file":
            _require_name_of(role, name, keyid)
            signer: Signer = KeySigner(self._load(self._directory_of(role) / name))
        else:
            signer = self._kept(role, uri)
        if signer.keyid != keyid:
            raise SignerUnavailable(f"{uri} holds key {signer.keyid}, not {keyid}")
        self._open[role, keyid] = signer
        return signer

    def held(self, role: str) -> list[KeySigner]:
        """Return every key of a role that lies in the directory, oldest file first.

        This is for keys that no keyset publishes, such as the `seal` key: the directory alone says
        which there are.

        Raises:
            SignerUnavailable: the role is not this process's, or a file cannot be used.
        """
        if role not in self._roles:
            raise SignerUnavailable(f"this process does not hold {role} keys")
        try:
            paths = sorted(
                self._directory_of(role).glob(f"{role}-*.pem"),
                key=lambda path: (path.lstat().st_mtime_ns, path.name),
            )
        except OSError as error:
            raise SignerUnavailable(f"cannot read {error.filename}: {error.strerror}") from error
        for path in paths:
            if (role, path.name) not in self._own:
                signer = KeySigner(self._load(path))
                _require_name_of(role, path.name, signer.keyid)
                self._own[role, path.name] = signer
        return [self._own[role, path.name] for path in paths]

    def find(self, role: str, uri: str) -> NewKey:
        """Return the public half of a key that was made elsewhere, as its keeper states it.

        Raises:
            SignerUnavailable: this process may not use such keys, or cannot reach this one.
        """
        if role not in self._roles:
            raise SignerUnavailable(f"this process does not hold {role} keys")
        _require_fitting(role, uri)
        if uri.partition(":")[0] == "file":
            raise SignerUnavailable("file: keys are made by the portal; name a key of a keeper")
        kept = self._opened(role, uri)
        return NewKey(_public_key(kept).raw, uri)

    def _kept(self, role: str, uri: str) -> KeptSigner:
        kept = self._opened(role, uri)
        return KeptSigner(kept, _public_key(kept), SHORT_MESSAGE_BYTES.get(uri.partition(":")[0]))

    def _opened(self, role: str, uri: str) -> KeptKey:
        scheme, _, rest = uri.partition(":")
        if scheme not in self._keepers:
            known = ", ".join(f"{each}:" for each in ("file", *sorted(self._keepers)))
            raise SignerUnavailable(
                f"no signer for {scheme}: keys; by its settings this process knows {known}"
            )
        kept = self._keepers[scheme](rest)
        if not kept.name.startswith(f"{role}-"):
            raise SignerUnavailable(f"{uri} is no {role} key: its name must begin with {role}-")
        return kept

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


def _public_key(kept: KeptKey) -> PublicKey:
    try:
        return PublicKey(kept.public_key())
    except MalformedPayload as error:
        raise SignerUnavailable(f"{kept.name}: {error.detail}") from error


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
    if named_role != role and named_role in ("root", "seal", *ROLES):
        raise SignerUnavailable(f"{name} is no {role} key: by its name it is a {named_role} key")
    raise SignerUnavailable(f"{name} is not the file of key {keyid}; that is called {expected}")


def _sync(directory: Path) -> None:
    """Make a new file's name durable, because the database will refer to it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
