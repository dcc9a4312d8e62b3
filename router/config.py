"""The router's configuration: one YAML file, read once, checked whole.

Invariants: what comes out is frozen and complete; every problem of a file is reported at once, each
with its line, its path and how to mend it. A key that is not known is a problem, never passed over.
YAML is read in a narrow form: one document, no anchors, aliases, tags or merge keys, no key twice.
Paths are relative to the file's directory.

Source: "Configuration" of the router's design; the configuration of the vendor's reference.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import yaml

from licensing.encoding import MAX_INTEGER
from router.errors import USAGE, RouterError

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 12

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(0|[1-9][0-9]{0,8})([smhd])")
_MAX_DURATION_S: Final = 366 * 86_400
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_TOKEN: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/:-]{0,127}")
_ARGON2ID: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,3})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,172}"
)
_MAX_ARGON2_KIB: Final = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration."""

    line: int
    path: str
    """The key, as `server.license.path`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: {self.path}: " if self.path else f"line {self.line}: "
        return where + self.message


class ConfigError(RouterError):
    """The configuration cannot be used; `problems` says all that is wrong with it."""

    exit = USAGE
    code = "config"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class RevocationConfig:
    """Where the revocation bundle is, and what happens when it cannot be used."""

    mode: Literal["off", "file"] = "off"
    path: Path | None = None
    require_current_bundle: bool = False
    fail_closed_on_bundle_error: bool = True


@dataclass(frozen=True)
class LeaseConfig:
    """Where the lease is kept, and how the portal is reached."""

    state_dir: Path | None = None
    url: str = ""
    """Where requests go instead of the license's `lease.url`."""
    ca_file: Path | None = None


@dataclass(frozen=True)
class LicenseConfig:
    """How the license is enforced. Durations are seconds."""

    path: Path
    state_path: Path
    instance_fingerprint: str = ""
    recheck_interval_s: int = 3600
    grace_period_s: int = 86_400
    """`grace_period_on_validation_error`; a license's `grace_s` can only shorten it."""
    fail_open_for_dev: bool = False
    revocation: RevocationConfig = field(default_factory=RevocationConfig)
    lease: LeaseConfig = field(default_factory=LeaseConfig)


@dataclass(frozen=True)
class ServerConfig:
    """Where the router listens, and where it forwards."""

    host: str
    port: int
    license: LicenseConfig
    upstream: str | None = None
    """Base URL of an OpenAI-compatible server, without a slash at its end."""


@dataclass(frozen=True)
class AdminConfig:
    """Who may see the license's status and the metrics."""

    users: tuple[tuple[str, str], ...] = ()
    """Names with their argon2id hashes."""
    metrics_token_file: Path | None = None


@dataclass(frozen=True)
class Caller:
    """An application that may call, known by the SHA-256 of its bearer token."""

    name: str
    token_sha256: str
    tokens_total: int | None = None
    """The operator's own quota; None is no quota."""


@dataclass(frozen=True)
class Model:
    """A model callers may name, and the features the license must have for it."""

    id: str
    group: str = "default"
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A whole configuration."""

    server: ServerConfig
    admin: AdminConfig = field(default_factory=AdminConfig)
    callers: tuple[Caller, ...] = ()
    models: tuple[Model, ...] = ()


_SCHEMA: Final[dict[str, tuple[str, ...]]] = {
    "": ("server", "admin", "callers", "models"),
    "server": ("listen", "upstream", "license"),
    "server.license": (
        "enabled",
        "path",
        "state_path",
        "instance_fingerprint",
        "recheck_interval",
        "grace_period_on_validation_error",
        "fail_open_for_dev",
        "revocation",
        "lease",
    ),
    "server.license.revocation": (
        "mode",
        "path",
        "require_current_bundle",
        "fail_closed_on_bundle_error",
    ),
    "server.license.lease": ("state_dir", "url", "ca_file"),
    "admin": ("users", "metrics_token_file"),
    "callers[]": ("name", "token_sha256", "tokens_total"),
    "models[]": ("id", "group", "features"),
}


def load_config(path: Path, *, release: bool = False) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be used, with everything that is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            (Problem(0, "", f"cannot read {path}: {error.strerror}; check path and permissions"),)
        ) from error
    return parse_config(data, path.absolute().parent, release=release)


def parse_config(data: bytes, base: Path, *, release: bool = False) -> Config:
    """Check a configuration; relative paths in it start at `base`.

    Raises:
        ConfigError: it cannot be used, with everything that is wrong.
    """
    root = _compose(data)
    reader = _Reader(base, release)
    config = reader.config(root)
    if reader.problems or config is None:
        raise ConfigError(tuple(sorted(reader.problems, key=lambda each: each.line)))
    return config


def parse_duration(text: str) -> int | None:
    """Return the seconds of `90s`, `15m`, `24h` or `7d`; None for another form or over a year."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    seconds = int(found[1]) * _UNITS[found[2]]
    return seconds if seconds <= _MAX_DURATION_S else None


# YAML


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses what a configuration does not need."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refusal(event, "anchors and aliases are not used here; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _refusal(event, "tags (!) are not used here; write the plain value")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(event, f"nested deeper than {MAX_DEPTH} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _refusal(event: yaml.Event, message: str) -> ConfigError:
    mark = getattr(event, "start_mark", None)
    return ConfigError((Problem(1 if mark is None else mark.line + 1, "", message),))


def _compose(data: bytes) -> yaml.Node:
    if len(data) > MAX_BYTES:
        raise ConfigError(
            (Problem(1, "", f"longer than {MAX_BYTES} bytes; is it the right file?"),)
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError((Problem(line, "", "not UTF-8; save the file as UTF-8"),)) from None
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        what = error.problem or error.context or "cannot be read"
        raise ConfigError((Problem(line, "", f"not YAML: {what}; check indentation"),)) from None
    except yaml.YAMLError as error:
        what = str(error).splitlines()[0]
        raise ConfigError((Problem(1, "", f"not YAML: {what}"),)) from None
    if node is None:
        raise ConfigError((Problem(1, "", "the file is empty; begin with server:"),))
    return node


def _line(node: yaml.Node) -> int:
    mark = node.start_mark
    return 1 if mark is None else mark.line + 1


class _Table:
    """A mapping of the file: its known keys by name."""

    def __init__(
        self, node: yaml.Node, path: str, schema: str, values: dict[str, yaml.Node]
    ) -> None:
        self.node = node
        self.path = path
        self.schema = schema
        self.values = values

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class _Reader:
    """Walks the nodes; gathers problems and goes on."""

    def __init__(self, base: Path, release: bool) -> None:
        self.base = base
        self.release = release
        self.problems: list[Problem] = []
        self.meant: set[str] = set()
        """Known keys that unknown ones are nearest to: not missing, but misspelled."""

    def wrong(self, node: yaml.Node, path: str, message: str) -> None:
        self.problems.append(Problem(_line(node), path, message))

    # the shape

    def pairs(self, node: yaml.Node, path: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, path, "must be a mapping of keys to values (`key: value`)")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag == "tag:yaml.org,2002:merge":
                self.wrong(key, path, "a key must be a plain word")
            elif name in found:
                self.wrong(key, f"{path}.{name}" if path else name, "stands twice; keep one")
            else:
                found[name] = value
        return found

    def table(self, node: yaml.Node, path: str, schema: str) -> _Table:
        known = _SCHEMA[schema]
        values = self.pairs(node, path)
        keys = {
            key.value: key
            for key, _ in (node.value if isinstance(node, yaml.MappingNode) else ())
            if isinstance(key, yaml.ScalarNode)
        }
        for name in [name for name in values if name not in known]:
            nearest = _nearest(name, schema)
            self.meant.add(nearest)
            self.wrong(
                keys[name],
                f"{path}.{name}" if path else name,
                f"unknown key; the nearest known one is {nearest}",
            )
            del values[name]
        return _Table(node, path, schema, values)

    def entries(self, table: _Table, name: str) -> list[tuple[str, yaml.Node]]:
        node = table.values.get(name)
        if node is None:
            return []
        path = table.at(name)
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, path, "must be a list (`- ` before each entry)")
            return []
        return [(f"{path}[{index}]", each) for index, each in enumerate(node.value)]

    # scalars

    def text(self, node: yaml.Node, path: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(node, path, "must be a single value")
            return None
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            self.wrong(node, path, 'has no value; write one, or "" for none')
            return None
        if kind == "bool":
            self.wrong(node, path, f'must be text; put it in quotes: "{node.value}"')
            return None
        return str(node.value)

    def take(
        self,
        table: _Table,
        name: str,
        read: Callable[[yaml.Node, str], T | None],
        default: T | None = None,
        *,
        required: str = "",
    ) -> T | None:
        node = table.values.get(name)
        if node is None:
            known = f"{table.schema}.{name}" if table.schema else name
            if required and known not in self.meant:
                self.wrong(table.node, table.at(name), f"is missing; {required}")
            return default
        return read(node, table.at(name))

    def boolean(self, node: yaml.Node, path: str) -> bool | None:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":bool") and node.style is None:
            if node.value in ("true", "True"):
                return True
            if node.value in ("false", "False"):
                return False
        self.wrong(node, path, "must be true or false")
        return None

    def count(self, node: yaml.Node, path: str) -> int | None:
        text = self.text(node, path)
        if text is None:
            return None
        plain = text.replace("_", "")
        if re.fullmatch("[1-9][0-9]{0,15}|0", plain) and int(plain) <= MAX_INTEGER:
            return int(plain)
        self.wrong(node, path, "must be a whole number of tokens, 0 or more")
        return None

    def duration(self, node: yaml.Node, path: str) -> int | None:
        text = self.text(node, path)
        if text is None:
            return None
        seconds = parse_duration(text)
        if seconds is None:
            self.wrong(
                node, path, f"{text!r} is no duration of at most 366d; write 90s, 15m, 24h or 7d"
            )
        return seconds

    def interval(self, node: yaml.Node, path: str) -> int | None:
        seconds = self.duration(node, path)
        if seconds == 0:
            self.wrong(node, path, "must be at least 1s")
            return None
        return seconds

    def place(self, node: yaml.Node, path: str) -> Path | None:
        """A path that must be there; empty is a problem."""
        text = self.text(node, path)
        if text == "":
            self.wrong(node, path, "is empty; write the path of a file")
            return None
        return None if text is None else self.base / text

    def optional_place(self, node: yaml.Node, path: str) -> Path | None:
        text = self.text(node, path)
        return self.base / text if text else None

    def matching(
        self, pattern: re.Pattern[str], hint: str, *, empty: bool = False
    ) -> Callable[[yaml.Node, str], str | None]:
        def read(node: yaml.Node, path: str) -> str | None:
            text = self.text(node, path)
            if text is None or (empty and text == "") or pattern.fullmatch(text):
                return text
            self.wrong(node, path, hint)
            return None

        return read

    def mode(self, node: yaml.Node, path: str) -> str | None:
        # YAML 1.1 reads a plain off as a boolean.
        if isinstance(node, yaml.ScalarNode) and node.value in ("off", "file"):
            return str(node.value)
        self.wrong(node, path, "must be off or file")
        return None

    def url(self, node: yaml.Node, path: str) -> str | None:
        text = self.text(node, path)
        if not text:
            return text
        try:
            parts = urlsplit(text)
            good = (
                parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and parts.port != 0
                and not (parts.query or parts.fragment or "@" in parts.netloc)
                and not re.search(r"[\s\x00-\x20\x7f]", text)
            )
        except ValueError:
            good = False
        if not good:
            self.wrong(
                node, path, "must be http://HOST or https://HOST with an optional port and path"
            )
            return None
        return text.rstrip("/")

    def listen(self, node: yaml.Node, path: str) -> tuple[str, int] | None:
        text = self.text(node, path)
        if text is None:
            return None
        host, _, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (
            bare
            and re.fullmatch("[0-9]{1,5}", port)
            and int(port) < 65536
            and (":" not in bare or bare != host)
            and not re.search(r"[\s/]", bare)
        ):
            return bare, int(port)
        self.wrong(node, path, f"{text!r} is no HOST:PORT; write 127.0.0.1:8080 or [::1]:8080")
        return None

    # the parts

    def config(self, root: yaml.Node) -> Config | None:
        table = self.table(root, "", "")
        server = self.take(table, "server", self.server, required="it says where to listen")
        admin = self.take(table, "admin", self.admin, AdminConfig())
        callers = [self.caller(path, node) for path, node in self.entries(table, "callers")]
        models = [self.model(path, node) for path, node in self.entries(table, "models")]
        self.unique(table, "callers", "name")
        self.unique(table, "callers", "token_sha256")
        self.unique(table, "models", "id")
        if self.problems or server is None or admin is None:
            return None
        return Config(
            server,
            admin,
            tuple(each for each in callers if each is not None),
            tuple(each for each in models if each is not None),
        )

    def unique(self, table: _Table, name: str, key: str) -> None:
        node = table.values.get(name)
        seen: set[str] = set()
        for index, entry in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ()):
            for label, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
                if label.value != key or not isinstance(value, yaml.ScalarNode):
                    continue
                if value.value in seen:
                    self.wrong(value, f"{name}[{index}].{key}", "stands in an entry above already")
                seen.add(value.value)

    def server(self, node: yaml.Node, path: str) -> ServerConfig | None:
        table = self.table(node, path, "server")
        listen = self.take(table, "listen", self.listen, required="write 127.0.0.1:8080")
        upstream = self.take(table, "upstream", self.url, "")
        license_ = self.take(
            table, "license", self.license, required="it names license.json and the state file"
        )
        if listen is None or license_ is None:
            return None
        return ServerConfig(*listen, license_, upstream or None)

    def license(self, node: yaml.Node, path: str) -> LicenseConfig | None:
        table = self.table(node, path, "server.license")
        if self.take(table, "enabled", self.boolean, True) is False:
            self.wrong(
                table.values["enabled"],
                table.at("enabled"),
                "config rejects enabled: false; remove the line and install a valid license file",
            )
        dev = self.take(table, "fail_open_for_dev", self.boolean, False)
        if dev and self.release:
            self.wrong(
                table.values["fail_open_for_dev"],
                table.at("fail_open_for_dev"),
                "a release build refuses true; write false",
            )
        place = self.take(table, "path", self.place, required="name the issued license.json")
        state = self.take(
            table, "state_path", self.place, required="name a file on durable private storage"
        )
        fingerprint = self.take(
            table,
            "instance_fingerprint",
            self.matching(
                _FINGERPRINT,
                "must be 8 to 128 letters, digits or . _ : -, as the license names it",
                empty=True,
            ),
            "",
        )
        recheck = self.take(table, "recheck_interval", self.interval, 3600)
        grace = self.take(table, "grace_period_on_validation_error", self.duration, 86_400)
        revocation = self.take(table, "revocation", self.revocation, RevocationConfig())
        lease = self.take(table, "lease", self.lease, LeaseConfig())
        if place is None or state is None or revocation is None or lease is None:
            return None
        return LicenseConfig(
            place,
            state,
            fingerprint or "",
            recheck or 0,
            grace or 0,
            bool(dev),
            revocation,
            lease,
        )

    def revocation(self, node: yaml.Node, path: str) -> RevocationConfig | None:
        table = self.table(node, path, "server.license.revocation")
        mode = self.take(table, "mode", self.mode, "off")
        place = self.take(table, "path", self.optional_place)
        required = self.take(table, "require_current_bundle", self.boolean, False)
        closed = self.take(table, "fail_closed_on_bundle_error", self.boolean, True)
        if mode == "file" and place is None and "path" not in table.values:
            self.wrong(node, table.at("path"), "is missing; mode file needs the bundle's path")
        elif mode == "file" and place is None:
            self.wrong(node, table.at("path"), "is empty; mode file needs the bundle's path")
        return RevocationConfig(
            "file" if mode == "file" else "off", place, bool(required), closed is not False
        )

    def lease(self, node: yaml.Node, path: str) -> LeaseConfig | None:
        table = self.table(node, path, "server.license.lease")
        return LeaseConfig(
            self.take(table, "state_dir", self.optional_place),
            self.take(table, "url", self.url, "") or "",
            self.take(table, "ca_file", self.optional_place),
        )

    def admin(self, node: yaml.Node, path: str) -> AdminConfig | None:
        table = self.table(node, path, "admin")
        users: list[tuple[str, str]] = []
        listed = table.values.get("users")
        for name, value in () if listed is None else self.pairs(listed, table.at("users")).items():
            where = f"{table.at('users')}.{name}"
            encoded = self.text(value, where)
            if encoded is None:
                continue
            if not name or ":" in name:
                self.wrong(value, where, "a user's name has no colon and is not empty")
            if problem := _hash_problem(encoded):
                self.wrong(value, where, problem)
            users.append((name, encoded))
        return AdminConfig(
            tuple(users), self.take(table, "metrics_token_file", self.optional_place)
        )

    def caller(self, path: str, node: yaml.Node) -> Caller | None:
        table = self.table(node, path, "callers[]")
        name = self.take(
            table,
            "name",
            self.matching(_NAME, "must be up to 128 letters, digits or . _ @ / : -"),
            required="callers are told apart by it",
        )
        token = self.take(
            table,
            "token_sha256",
            self.matching(
                _SHA256,
                'must be 64 lower-case hex digits: printf %s "$TOKEN" | sha256sum',
            ),
            required='printf %s "$TOKEN" | sha256sum gives it',
        )
        total = self.take(table, "tokens_total", self.count)
        return None if name is None or token is None else Caller(name, token, total)

    def model(self, path: str, node: yaml.Node) -> Model | None:
        table = self.table(node, path, "models[]")
        hint = "must be up to 128 letters, digits or . _ @ / : -"
        name = self.take(
            table, "id", self.matching(_NAME, hint), required="callers name the model by it"
        )
        group = self.take(table, "group", self.matching(_NAME, hint), "default")
        features: list[str] = []
        for where, each in self.entries(table, "features"):
            feature = self.matching(_TOKEN, "is no feature's name; write it as in the license")(
                each, where
            )
            if feature is not None:
                features.append(feature)
        return None if name is None else Model(name, group or "default", tuple(features))


def _hash_problem(encoded: str) -> str | None:
    found = _ARGON2ID.fullmatch(encoded)
    if found is None:
        return "must be an argon2id hash ($argon2id$v=19$…) in quotes, never the password itself"
    memory, passes, lanes = (int(each) for each in found.groups())
    if not 8 * lanes <= memory <= _MAX_ARGON2_KIB or not 1 <= passes <= 100 or lanes < 1:
        return "asks for a cost out of bounds; hash with m at most 1048576 and t at most 100"
    return None


def known_paths() -> Iterator[str]:
    """Yield every key a configuration can have, as its path."""
    for schema, names in _SCHEMA.items():
        for name in names:
            yield f"{schema}.{name}" if schema else name


def _nearest(name: str, schema: str) -> str:
    """Return the path of the known key that is written most like this one."""

    def likeness(path: str) -> tuple[float, bool]:
        above, _, last = path.rpartition(".")
        ratio = difflib.SequenceMatcher(None, name.lower(), last).ratio()
        return ratio + (0.15 if above == schema else 0), above == schema

    return max(known_paths(), key=likeness)


def describe(config: Config) -> dict[str, Any]:
    """Return what a configuration says, without hashes: safe to print."""
    license_ = config.server.license
    return {
        "listen": f"{config.server.host}:{config.server.port}",
        "upstream": config.server.upstream or "none",
        "license_path": str(license_.path),
        "state_path": str(license_.state_path),
        "recheck_interval_s": license_.recheck_interval_s,
        "grace_period_s": license_.grace_period_s,
        "revocation_mode": license_.revocation.mode,
        "callers": [caller.name for caller in config.callers],
        "models": [model.id for model in config.models],
        "admin_users": [name for name, _ in config.admin.users],
    }
