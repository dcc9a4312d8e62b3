"""Settings: frozen, from the environment, secrets by file path only.

With a wrong or missing setting the process does not start; the error names the setting and says
how to fix it.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

SURFACES: Final = ("public", "account", "staff", "machine", "webhooks")
APPROVALS: Final = ("session", "command")
DEFAULT_PORT: Final = 8000
PROCESSES: Final = ("web", "worker", "command")
"""The kinds of process; each reads the secrets it needs."""
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_ORIGIN: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?"
)
_LOOPBACK: Final = re.compile(r"http://(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]+)?")
DATABASES: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
SECRET_BYTES: Final = 32
BRING_IT: Final = "bring the file you named"


class BadSetting(Exception):
    """A setting is missing or wrong; the message names it and says how to fix it."""


@dataclass(frozen=True)
class KeeperSettings:
    """Where keepers of signing keys are, and the files of the secrets they are asked with."""

    pkcs11_module: Path | None = None
    """The library that speaks to the token."""
    pkcs11_pin_file: Path | None = None
    vault_address: str | None = None
    """An origin; https unless the host is loopback."""
    vault_token_file: Path | None = None
    vault_namespace: str | None = None
    vault_ca_file: Path | None = None

    def pkcs11_pin(self) -> str:
        """Return the PIN of the token's user.

        Raises:
            BadSetting: see `read_secret`; or none is named, or it is no text.
        """
        return _named_text(self.pkcs11_pin_file, "PORTAL_PKCS11_PIN_FILE")

    def vault_token(self) -> str:
        """Return the token to ask Vault with.

        Raises:
            BadSetting: see `read_secret`; or none is named, or it is no text.
        """
        return _named_text(self.vault_token_file, "PORTAL_VAULT_TOKEN_FILE")


@dataclass(frozen=True)
class Settings:
    """Where the portal keeps its data, and how the world reaches it."""

    data_dir: Path
    database_url: str
    origin: str
    former_origins: frozenset[str]
    issuer: str
    surfaces: frozenset[str]
    keys_dir: Path
    key_passphrase_file: Path
    session_key_file: Path
    data_key_file: Path
    trusted_proxies: int
    """How many proxies in front set forwarding headers; with 0 the headers are ignored."""
    mail_from: str
    smtp_url: str | None
    """`smtp://host:port` or `smtps://…`; if None, mail is written to `mail_dir`."""
    smtp_password_file: Path | None
    mail_dir: Path
    downloads_dir: Path
    """Where the router's distributions are, for `/downloads`."""
    staff_address: str
    approvals: str
    """What the signer takes as the approval of a staff person: one of `APPROVALS`."""
    evaluations_a_day: int
    denied_domains: frozenset[str]
    log_level: str
    development: bool
    """Shows mail at `/dev/mail`; only on loopback with `PORTAL_DEV=1`."""
    keepers: KeeperSettings = KeeperSettings()
    """For keys that are not files."""

    @property
    def secure(self) -> bool:
        """Whether people reach the portal over TLS."""
        return self.origin.startswith("https://")

    @property
    def port(self) -> int:
        """The port of the public origin, which `portal serve` listens on by default."""
        _, _, port = self.origin.rpartition(":")
        return int(port) if port.isdigit() else DEFAULT_PORT

    @property
    def secret_files(self) -> dict[str, Path]:
        """The files of the portal's own secrets, by the names of their settings."""
        return {
            "PORTAL_KEY_PASSPHRASE_FILE": self.key_passphrase_file,
            "PORTAL_SESSION_KEY_FILE": self.session_key_file,
            "PORTAL_DATA_KEY_FILE": self.data_key_file,
        }

    def session_key(self) -> bytes:
        """Return the key that signs the session cookie.

        Raises:
            BadSetting: see `read_secret`.
        """
        return self._secret("PORTAL_SESSION_KEY_FILE")

    def data_key(self) -> bytes:
        """Return the key that encrypts small secrets in the database.

        Raises:
            BadSetting: see `read_secret`.
        """
        return self._secret("PORTAL_DATA_KEY_FILE")

    def key_passphrase(self) -> bytes:
        """Return the passphrase that encrypts the signing keys.

        Raises:
            BadSetting: see `read_secret`.
        """
        return self._secret("PORTAL_KEY_PASSPHRASE_FILE")

    def smtp_password(self) -> str | None:
        """Return the password for the SMTP server; None if no file is named.

        Raises:
            BadSetting: see `read_secret`; or the file is not text.
        """
        if self.smtp_password_file is None:
            return None
        return _named_text(self.smtp_password_file, "PORTAL_SMTP_PASSWORD_FILE")

    def read_secrets(self, process: str | None = None) -> None:
        """Read every secret file that a kind of process needs; with None, all of them.

        Raises:
            BadSetting: a secret cannot be used.
        """
        self.key_passphrase()
        self.data_key()
        if self.keepers.pkcs11_module is not None:
            self.keepers.pkcs11_pin()
        if self.keepers.vault_address is not None:
            self.keepers.vault_token()
        if process in ("web", None):
            self.session_key()
        if process in ("worker", None):
            self.smtp_password()

    def read_named_secrets(self) -> None:
        """Read those of the portal's own secrets that `portal init` does not create.

        Raises:
            BadSetting: a secret is missing, or cannot be used.
        """
        for setting, path in self.secret_files.items():
            if not self._is_made_by_init(path):
                self._secret(setting)

    def _is_made_by_init(self, secret_file: Path) -> bool:
        return secret_file.parent == self.data_dir / "secrets"

    def _secret(self, setting: str) -> bytes:
        path = self.secret_files[setting]
        cure = "`portal init` makes it" if self._is_made_by_init(path) else BRING_IT
        return read_secret(path, setting, cure=cure)


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of this process.

    Raises:
        BadSetting: a setting is wrong.
    """
    data_dir = Path(environment.get("PORTAL_DATA_DIR") or "var").absolute()
    secrets_dir = data_dir / "secrets"
    port = environment.get("PORT") or str(DEFAULT_PORT)
    if not _is_port(port):
        raise BadSetting("PORT must be a port number from 1 to 65535")
    origin = _origin(
        "PORTAL_ORIGIN", environment.get("PORTAL_ORIGIN") or f"http://127.0.0.1:{port}"
    )
    if origin.startswith("http://") and not _LOOPBACK.fullmatch(origin):
        raise BadSetting("PORTAL_ORIGIN must begin with https:// unless its host is loopback")
    development = environment.get("PORTAL_DEV") == "1"
    if development and not _LOOPBACK.fullmatch(origin):
        raise BadSetting("PORTAL_DEV=1 is for a loopback PORTAL_ORIGIN only; unset it")
    smtp_password_file = environment.get("PORTAL_SMTP_PASSWORD_FILE")
    return Settings(
        data_dir=data_dir,
        database_url=_database_url(environment, data_dir),
        origin=origin,
        former_origins=frozenset(
            _origin("PORTAL_FORMER_ORIGINS", each)
            for each in _listed(environment, "PORTAL_FORMER_ORIGINS")
        ),
        issuer=environment.get("PORTAL_ISSUER") or "metrum.ai",
        surfaces=parse_surfaces(environment.get("PORTAL_SURFACES") or ",".join(SURFACES)),
        keys_dir=Path(environment.get("PORTAL_KEYS_DIR") or data_dir / "keys").absolute(),
        key_passphrase_file=Path(
            environment.get("PORTAL_KEY_PASSPHRASE_FILE") or secrets_dir / "key-passphrase"
        ).absolute(),
        session_key_file=Path(
            environment.get("PORTAL_SESSION_KEY_FILE") or secrets_dir / "session-key"
        ).absolute(),
        data_key_file=Path(
            environment.get("PORTAL_DATA_KEY_FILE") or secrets_dir / "data-key"
        ).absolute(),
        trusted_proxies=_number(environment, "PORTAL_TRUSTED_PROXIES", 0, 10),
        mail_from=_mail_from(environment.get("PORTAL_MAIL_FROM") or "licenses@localhost"),
        smtp_url=_smtp_url(environment.get("PORTAL_SMTP_URL") or None),
        smtp_password_file=Path(smtp_password_file).absolute() if smtp_password_file else None,
        downloads_dir=Path(
            environment.get("PORTAL_DOWNLOADS_DIR") or data_dir / "downloads"
        ).absolute(),
        mail_dir=data_dir / "mail",
        staff_address=environment.get("PORTAL_STAFF_ADDRESS") or "",
        approvals=_approvals(
            environment.get("PORTAL_APPROVALS"), loopback=_LOOPBACK.fullmatch(origin) is not None
        ),
        evaluations_a_day=_number(environment, "PORTAL_EVALUATIONS_A_DAY", 0, 10_000, usual=50),
        denied_domains=frozenset(
            domain.lower() for domain in _listed(environment, "PORTAL_DENIED_DOMAINS")
        ),
        log_level=_log_level(environment.get("PORTAL_LOG_LEVEL") or "info"),
        development=development,
        keepers=_keepers(environment),
    )


def _keepers(environment: Mapping[str, str]) -> KeeperSettings:
    def path(setting: str) -> Path | None:
        text = environment.get(setting)
        return Path(text).absolute() if text else None

    address = environment.get("PORTAL_VAULT_ADDRESS") or None
    if address is not None:
        address = _origin("PORTAL_VAULT_ADDRESS", address)
        if address.startswith("http://") and not _LOOPBACK.fullmatch(address):
            raise BadSetting(
                "PORTAL_VAULT_ADDRESS must begin with https:// unless its host is loopback"
            )
    return KeeperSettings(
        pkcs11_module=path("PORTAL_PKCS11_MODULE"),
        pkcs11_pin_file=path("PORTAL_PKCS11_PIN_FILE"),
        vault_address=address,
        vault_token_file=path("PORTAL_VAULT_TOKEN_FILE"),
        vault_namespace=environment.get("PORTAL_VAULT_NAMESPACE") or None,
        vault_ca_file=path("PORTAL_VAULT_CA_FILE"),
    )


def _named_text(path: Path | None, setting: str) -> str:
    """Read a secret that is text, of any length."""
    if path is None:
        raise BadSetting(f"{setting} is not set; {BRING_IT}")
    try:
        return read_secret(path, setting, at_least=1).decode()
    except UnicodeDecodeError:
        raise BadSetting(f"{setting}: {path} is not UTF-8 text") from None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535


def _mail_from(text: str) -> str:
    if not re.fullmatch(r"(?:[^<>@\r\n]*<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+)", text):
        raise BadSetting(
            "PORTAL_MAIL_FROM must look like desk@example.com or License desk <desk@example.com>"
        )
    return text


def _smtp_url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", text):
        raise BadSetting("PORTAL_SMTP_URL must look like smtp://user@host:587 or smtps://host:465")
    if parts.password is not None:
        raise BadSetting("PORTAL_SMTP_URL holds a password; put it in PORTAL_SMTP_PASSWORD_FILE")
    return text


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise BadSetting(f"PORTAL_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
    return text.lower()


def _approvals(text: str | None, *, loopback: bool) -> str:
    """Read what counts as an approval; a portal that others can reach takes the command's alone."""
    if not text:
        return "session" if loopback else "command"
    if text == "passkey":
        raise BadSetting(
            "PORTAL_APPROVALS=passkey needs passkeys, which this version does not have yet; "
            "use command, or session"
        )
    if text not in APPROVALS:
        raise BadSetting(f"PORTAL_APPROVALS must be {' or '.join(APPROVALS)}")
    return text


def parse_surfaces(text: str) -> frozenset[str]:
    """Parse a list such as `public,account`.

    Raises:
        BadSetting: the list is empty or names an unknown surface.
    """
    chosen = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(chosen - set(SURFACES))
    if unknown or not chosen:
        raise BadSetting(
            f"PORTAL_SURFACES names {', '.join(unknown) or 'nothing'}; "
            f"choose from {', '.join(SURFACES)}"
        )
    return chosen


def read_secret(
    path: Path, setting: str, *, at_least: int = SECRET_BYTES, cure: str = BRING_IT
) -> bytes:
    """Read a secret file that only its owner may read, of `at_least` bytes without white space.

    Raises:
        BadSetting: the file is missing, too short, or readable by others.
    """
    try:
        status = path.stat()
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadSetting(f"{setting}: cannot read {path} ({error.strerror}); {cure}") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise BadSetting(f"{setting}: others can read {path}; chmod 600 it")
    if not secret:
        raise BadSetting(f"{setting}: {path} is empty")
    if len(secret) < at_least:
        raise BadSetting(f"{setting}: {path} is shorter than {at_least} bytes")
    return secret


def _database_url(environment: Mapping[str, str], data_dir: Path) -> str:
    text = environment.get("PORTAL_DATABASE_URL") or f"sqlite:///{data_dir / 'portal.sqlite3'}"
    try:
        url = make_url(text)
        usable = url.port is None or _is_port(str(url.port))
    except (ArgumentError, ValueError):
        # The library's message may quote the URL, and that may hold a password.
        usable = False
    if not usable:
        raise BadSetting("PORTAL_DATABASE_URL is not a database URL")
    if url.drivername not in DATABASES:
        raise BadSetting("PORTAL_DATABASE_URL must begin with sqlite:/// or postgresql://")
    return text


def _origin(setting: str, text: str) -> str:
    try:
        usable = _ORIGIN.fullmatch(text) is not None and urlsplit(text).port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"^(http://.*:80|https://.*:443)$", text):
        raise BadSetting(
            f"{setting} must be scheme and host in lower case without default port, path or "
            f"trailing slash, such as https://licenses.example.com; it is {text!r}"
        )
    return text


def _listed(environment: Mapping[str, str], setting: str) -> list[str]:
    return [part.strip() for part in environment.get(setting, "").split(",") if part.strip()]


def _number(
    environment: Mapping[str, str],
    setting: str,
    lowest: int,
    highest: int,
    *,
    usual: int | None = None,
) -> int:
    text = environment.get(setting) or str(lowest if usual is None else usual)
    if not (text.isascii() and text.isdigit()) or not lowest <= int(text) <= highest:
        raise BadSetting(f"{setting} must be a whole number from {lowest} to {highest}")
    return int(text)
