"""A YAML file read into msgspec types: every problem at once, each with its line and its path.

A frozen Struct is a mapping with exactly its keys; a tuple is a list; a tuple of pairs is a mapping
with free keys; anything else is a single value, which msgspec converts. The `Meta` of a type says
what a value must be (`description`) and, if text must be read first, with which function
(`extra["read"]`, which raises ValueError).

Invariants: only simple YAML is accepted: one document, no anchors, aliases, tags or merge keys, no
key twice. The problem of an unknown key names the nearest known key.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml
from msgspec import UNSET, UnsetType

from router.errors import USAGE, RouterError

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 12

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file."""

    line: int
    path: str
    """The key, as `server.license.path`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: {self.path}: " if self.path else f"line {self.line}: "
        return where + self.message


class ConfigError(RouterError):
    """The configuration cannot be used; `problems` lists everything that is wrong with it."""

    exit = USAGE
    code = "config"

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def known_paths(kind: type[msgspec.Struct], above: str = "") -> Iterator[str]:
    """Yield every key a file of this type can have, as its path; `[]` stands for any entry."""
    for each in msgspec.structs.fields(kind):
        path = _under(above, each.encode_name)
        yield path
        wanted, item, _ = _parts(each.type)
        if _is_table(wanted):
            yield from known_paths(wanted, path)
        if _is_table(item):
            yield from known_paths(item, f"{path}[]")


class YamlFile(Generic[T]):
    """The text of a file, read into a type."""

    def __init__(self, data: bytes, kind: type[T], base: Path) -> None:
        """Read all of it; relative paths in it start at `base`.

        Raises:
            ConfigError: it is not YAML, or uses more of YAML than is accepted here.
        """
        self.values: dict[str, Any] = {}
        """The values that were read without a problem, by path."""
        self._base = base
        self._lines: dict[str, int] = {}
        self._problems: list[Problem] = []
        self._known = tuple(known_paths(kind))
        self._meant: set[str] = set()
        """Known keys nearest to unknown ones: they are misspelled, not missing."""
        self._whole = self._value(_compose(data), kind, "")

    def result(self) -> T:
        """Return what was read.

        Raises:
            ConfigError: there are problems; it lists all of them, from the top of the file down.
        """
        if self._problems:
            raise ConfigError(*sorted(self._problems, key=lambda each: (each.line, each.path)))
        whole: T = self._whole
        return whole

    def wrong(self, path: str, message: str, line: int | None = None) -> UnsetType:
        """Record a problem with the value at a path, or with a value missing there."""
        if line is None:
            line = self._lines.get(path) or self._lines[path.rpartition(".")[0]]
        self._problems.append(Problem(line, path, message))
        return UNSET

    def _value(self, node: yaml.Node, annotation: Any, path: str) -> Any:
        """Return the value of this node; UNSET if it is wrong."""
        self._lines[path] = _line(node)
        kind, item, _ = _parts(annotation)
        if _is_table(kind):
            value = self._table(node, kind, path)
        elif get_origin(item) is tuple:
            value = self._pairs(node, *get_args(item), path=path)
        elif item is not None:
            value = self._list(node, item, path)
        else:
            value = self._scalar(node, annotation, path)
        if value is not UNSET:
            self.values[path] = value
        return value

    def _table(self, node: yaml.Node, kind: type[msgspec.Struct], path: str) -> Any:
        found = self._keys(node, path)
        if found is None:
            return UNSET
        fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        for name, (key, value) in found.items():
            there = _under(path, name)
            if name in fields:
                values[fields[name].name] = self._value(value, fields[name].type, there)
            else:
                nearest = self._nearest(name, path)
                self._meant.add(nearest)
                self.wrong(there, f"unknown key; the nearest known one is {nearest}", _line(key))
        for name, field in fields.items():
            if name not in found and field.required:
                values[field.name] = UNSET
                if _general(_under(path, name)) not in self._meant:
                    self.wrong(_under(path, name), f"is missing; write {_what(field.type)}")
        return UNSET if UNSET in values.values() else kind(**values)

    def _list(self, node: yaml.Node, item: Any, path: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return self.wrong(path, "must be a list (`- ` before each entry)")
        values = [self._value(each, item, f"{path}[{i}]") for i, each in enumerate(node.value)]
        return UNSET if UNSET in values else tuple(values)

    def _pairs(self, node: yaml.Node, key: Any, value: Any, *, path: str) -> Any:
        found = self._keys(node, path) or {}
        pairs = [
            (self._scalar(first, key, there), self._value(second, value, there))
            for there, (first, second) in ((_under(path, n), each) for n, each in found.items())
        ]
        return UNSET if any(UNSET in pair for pair in pairs) else tuple(pairs)

    def _keys(self, node: yaml.Node, path: str) -> dict[str, tuple[yaml.Node, yaml.Node]] | None:
        """Return the keys of a mapping and their values, by name; None if it is not a mapping."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(path, "must be a mapping of keys to values (`key: value`)")
            return None
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                self.wrong(path, "a key must be a plain word", _line(key))
            elif key.value in found:
                self.wrong(_under(path, key.value), "is there twice; keep one", _line(key))
            else:
                found[key.value] = (key, value)
        return found

    def _scalar(self, node: yaml.Node, annotation: Any, path: str) -> Any:
        kind, _, meta = _parts(annotation)
        try:
            value = _plain(node, kind)
            if kind == Path | None and not value:
                return None
            if meta is not None and meta.extra is not None:
                value = meta.extra["read"](value)
            return msgspec.convert(value, annotation, dec_hook=self._place)
        except msgspec.ValidationError:
            message = ""
        except ValueError as error:
            message = str(error)
        return self.wrong(path, message or f"must be {_what(annotation)}", _line(node))

    def _place(self, kind: type, text: str) -> Path:
        """Return the path that a text names, for msgspec."""
        if kind is not Path or not text:
            raise ValueError
        return self._base / text

    def _nearest(self, name: str, table: str) -> str:
        """Return the known key spelled most like this one, preferably one of the same table."""

        def likeness(path: str) -> tuple[float, bool]:
            above, _, last = path.rpartition(".")
            here = above == _general(table)
            ratio = difflib.SequenceMatcher(None, name.lower(), last).ratio()
            return ratio + (0.15 if here else 0), here

        return max(self._known, key=likeness)


def _plain(node: yaml.Node, kind: Any) -> Any:
    """Return a single value: true and false where these are wanted, else its text.

    Raises:
        ValueError: it is not a single value; the message may say what to write.
    """
    is_single = isinstance(node, yaml.ScalarNode)
    tag = node.tag.rpartition(":")[2] if is_single else ""
    if kind is bool:
        if tag == "bool" and node.value.lower() in ("true", "false"):
            return node.value.lower() == "true"
        raise ValueError("must be true or false")
    if not is_single:
        raise ValueError("must be a single value")
    if tag == "null":
        raise ValueError('has no value; write one, or "" for none')
    # A plain `off` is a boolean in YAML 1.1, but a word if the value is one of several words.
    if tag == "bool" and get_origin(kind) is not Literal:
        raise ValueError(f'must be text; put it in quotes: "{node.value}"')
    return node.value


def _parts(annotation: Any) -> tuple[Any, Any, msgspec.Meta | None]:
    """Return a type, the type of its items if it is a tuple, and its `Meta`."""
    meta = None
    if get_origin(annotation) is Annotated:
        annotation, meta, *_ = get_args(annotation)
    item = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return annotation, item, meta


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _what(annotation: Any) -> str:
    """Return what a value of this type must be, in words."""
    _, _, meta = _parts(annotation)
    return (meta and meta.description) or "a value"


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _general(path: str) -> str:
    """Return a path with `[]` for the number of an entry."""
    return re.sub(r"\[\d+\]", "[]", path)


def _line(node: yaml.Node | yaml.Event) -> int:
    mark = node.start_mark
    return 1 if mark is None else mark.line + 1


def _refusal(message: str, line: int = 1) -> ConfigError:
    return ConfigError(Problem(line, "", message))


def _compose(data: bytes) -> yaml.Node:
    """Return the root node of the one document.

    Raises:
        ConfigError: it cannot be read, or uses more of YAML than is accepted here.
    """
    if len(data) > MAX_BYTES:
        raise _refusal(f"longer than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = data.decode("utf-8")
        _refuse_extras(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refusal("not UTF-8; save the file as UTF-8", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        line = 1 if mark is None else mark.line + 1
        raise _refusal(f"not YAML: {what}; check indentation", line) from None
    except yaml.YAMLError as error:
        raise _refusal(f"not YAML: {str(error).splitlines()[0]}") from None
    if node is None:
        raise _refusal("the file is empty; begin with server:")
    return node


def _refuse_extras(text: str) -> None:
    """Refuse what a configuration does not need, before any node is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refusal("anchors and aliases are not accepted here; write it out", _line(event))
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!) are not accepted here; write the plain value", _line(event))
        if depth >= MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", _line(event))
