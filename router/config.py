"""The router's configuration: one YAML file, read once and checked as a whole.

Each field of the types below is a key of the file, with its default. Durations become seconds, and
relative paths start at the file's directory.

Invariants: what comes out is frozen and complete. Every problem of a file is reported at once, with
its line, its path and how to mend it; `yaml_file.py` does the reading.

Source: "Configuration" of the router's design; the configuration of the vendor's reference.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from licensing.encoding import MAX_INTEGER
from router.yaml_file import MAX_BYTES, ConfigError, Problem, YamlFile

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_DURATION_S: Final = 366 * 86_400
_URL_FORM: Final = re.compile(
    r"(?i:https?)://(?:\[[0-9A-Fa-f:.]+\]|[^][:/?#@\s\x00-\x20\x7f]+)(?::([0-9]{1,5}))?"
    r"(?:/[^?#\s\x00-\x20\x7f]*)?"
)
_ARGON2ID: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,3})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,172}"
)
_MAX_ARGON2_KIB: Final = 1024 * 1024


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def parse_duration(text: str) -> int | None:
    """Return the seconds of `90s`, `15m`, `24h` or `7d`; None for another form or over 366 days."""
    found = re.fullmatch(r"(0|[1-9][0-9]{0,8})([smhd])", text)
    seconds = 0 if found is None else int(found[1]) * _UNITS[found[2]]
    return None if found is None or seconds > _MAX_DURATION_S else seconds


def _duration(text: str) -> int:
    seconds = parse_duration(text)
    if seconds is None:
        raise ValueError(f"{text!r} is no duration of at most 366d; write 90s, 15m, 24h or 7d")
    return seconds


def _tokens(text: str) -> int:
    if not re.fullmatch("[1-9][0-9_]{0,20}|0", text) or int(text.replace("_", "")) > MAX_INTEGER:
        raise ValueError
    return int(text.replace("_", ""))


def _url(text: str) -> str:
    found = _URL_FORM.fullmatch(text)
    if text and (found is None or not 0 < int(found[1] or 80) < 65536):
        raise ValueError
    return text.rstrip("/")


def _address(text: str) -> Address:
    found = re.fullmatch(r"(?:\[([^]\s/]+)\]|([^][:\s/]+)):([0-9]{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise ValueError
    return Address(found[1] or found[2], int(found[3]))


def _password_hash(text: str) -> str:
    found = _ARGON2ID.fullmatch(text)
    if found is None:
        raise ValueError
    memory, passes, lanes = (int(each) for each in found.groups())
    if not 8 * lanes <= memory <= _MAX_ARGON2_KIB or not 1 <= passes <= 100 or lanes < 1:
        raise ValueError(
            "asks for a cost out of bounds; hash with m at most 1048576 and t at most 100"
        )
    return text


def _text(pattern: str, what: str) -> Meta:
    """Describe a text by its pattern, and in words."""
    return Meta(pattern=rf"^(?:{pattern})\Z", description=what)


def _read(function: Callable[[str], object], what: str, ge: int | None = None) -> Meta:
    """Describe a text by the function that reads it, and in words."""
    return Meta(extra={"read": function}, description=what, ge=ge)


Name = Annotated[
    str, _text("[A-Za-z0-9][A-Za-z0-9._@/:-]{0,127}", "up to 128 letters, digits or . _ @ / : -")
]
UserName = Annotated[str, _text("[^:]+", "a user's name: not empty, no colon")]
Feature = Annotated[str, _text("[a-z0-9][a-z0-9_.-]{0,63}", "a feature's name, as in the license")]
Fingerprint = Annotated[
    str,
    _text("[A-Za-z0-9._:-]{8,128}|", "8 to 128 letters, digits or . _ : -, as the license has it"),
]
TokenHash = Annotated[
    str, _text("[0-9a-f]{64}", '64 lower-case hex digits: printf %s "$TOKEN" | sha256sum')
]
PasswordHash = Annotated[
    str, _read(_password_hash, "an argon2id hash ($argon2id$v=19$…) in quotes, never the password")
]
Url = Annotated[str, _read(_url, "http://HOST or https://HOST with an optional port and path")]
Listen = Annotated[Address, _read(_address, "HOST:PORT, as 127.0.0.1:8080 or [::1]:8080")]
Mode = Annotated[Literal["off", "file"], Meta(description="off or file")]
Seconds = Annotated[int, _read(_duration, "90s, 15m, 24h or 7d")]
Interval = Annotated[int, _read(_duration, "at least 1s", ge=1)]
Tokens = Annotated[int | None, _read(_tokens, "a whole number of tokens, 0 or more")]


class RevocationConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the revocation bundle is, and what happens if it cannot be used."""

    mode: Mode = "off"
    path: Path | None = None
    require_current_bundle: bool = False
    fail_closed_on_bundle_error: bool = True


class LeaseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the lease is kept, and how the portal is reached."""

    state_dir: Path | None = None
    url: Url = ""
    """Where requests go instead of the license's `lease.url`."""
    ca_file: Path | None = None


class LicenseConfig(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "recheck_interval_s": "recheck_interval",
        "grace_period_s": "grace_period_on_validation_error",
    },
):
    """How the license is enforced. Durations are seconds."""

    path: Annotated[Path, Meta(description="the path of the issued license.json")]
    state_path: Annotated[Path, Meta(description="a file on durable private storage")]
    instance_fingerprint: Fingerprint = ""
    recheck_interval_s: Interval = 3600
    grace_period_s: Seconds = 86_400
    """A license's `grace_s` can only shorten it."""
    fail_open_for_dev: bool = False
    revocation: RevocationConfig = RevocationConfig()
    lease: LeaseConfig = LeaseConfig()
    enabled: bool = True
    """Always true: nothing turns the license off."""


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the router listens, and where it forwards."""

    listen: Listen
    license: Annotated[LicenseConfig, Meta(description="path and state_path below it")]
    upstream: Url = ""
    """Base URL of an OpenAI-compatible server, without a trailing slash; empty for none."""

    @property
    def host(self) -> str:
        """The name or address to listen on."""
        return self.listen.host

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.listen.port


class AdminConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may see the license's status and the metrics."""

    users: tuple[tuple[UserName, PasswordHash], ...] = ()
    """Names with their argon2id hashes."""
    metrics_token_file: Path | None = None


class Caller(Struct, frozen=True, forbid_unknown_fields=True):
    """An application that may call, known by the SHA-256 of its bearer token."""

    name: Name
    token_sha256: TokenHash
    tokens_total: Tokens = None
    """The operator's own quota; None means no quota."""


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """A model callers may name, and the features the license must have for it."""

    id: Name
    group: Name = "default"
    features: tuple[Feature, ...] = ()


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration."""

    server: Annotated[ServerConfig, Meta(description="listen and license below it")]
    admin: AdminConfig = AdminConfig()
    callers: tuple[Caller, ...] = ()
    models: tuple[Model, ...] = ()


def load_config(path: Path, *, distribution: bool = False) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be used; the error lists everything that is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            Problem(0, "", f"cannot read {path}: {error.strerror}; check path and permissions")
        ) from error
    return parse_config(data, path.absolute().parent, distribution=distribution)


def parse_config(data: bytes, base: Path, *, distribution: bool = False) -> Config:
    """Check a configuration; relative paths in it start at `base`.

    Raises:
        ConfigError: it cannot be used; the error lists everything that is wrong.
    """
    file = YamlFile(data, Config, base)
    enabled, dev = "server.license.enabled", "server.license.fail_open_for_dev"
    if file.values.get(enabled) is False:
        file.wrong(
            enabled,
            "config rejects enabled: false; remove the line and install a valid license file",
        )
    if file.values.get(dev) and distribution:
        file.wrong(dev, "a distribution refuses true; write false")
    bundle = "server.license.revocation"
    if file.values.get(f"{bundle}.mode") == "file" and not file.values.get(f"{bundle}.path"):
        file.wrong(f"{bundle}.path", "is empty or missing; mode file needs the bundle's path")
    for key in (r"callers\[\d+\]\.name", r"callers\[\d+\]\.token_sha256", r"models\[\d+\]\.id"):
        seen = set()
        for path, value in file.values.items():
            if re.fullmatch(key, path):
                if value in seen:
                    file.wrong(path, "is already used in an entry above")
                seen.add(value)
    return file.result()
