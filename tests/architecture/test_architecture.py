"""The rules of the house, by what is written and by what runs."""

import ast
import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, nodes

from tests.cli.programs import BIN, Shell, make_shell

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("licensing", "router", "portal")
LONGEST = 700
RUN_S = 120


def sources(*rooms: str) -> list[Path]:
    """Return every Python file of these directories."""
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def templates() -> list[Path]:
    """Return every template."""
    return sorted(path for path in (ROOT / "templates").rglob("*") if path.is_file())


def name_of(path: Path) -> str:
    """Return a file's path in the project."""
    return path.relative_to(ROOT).as_posix()


def run_program(module: str, environment: dict[str, str], *flags: str) -> dict[str, Any]:
    """Run a module of the tests in a process of its own; return the object it prints."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-m", module],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    value: dict[str, Any] = json.loads(ended.stdout)
    return value


# Who imports whom


def test_the_import_contracts_are_the_only_ones_and_are_kept() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = [contract["name"] for contract in settings["contracts"]]
    assert settings["root_packages"] == list(PACKAGES)
    assert len(names) >= 6
    for contract in settings["contracts"]:
        assert "ignore_imports" not in contract, f"{contract['name']} makes exceptions"
    for rival in (".importlinter", "setup.cfg", "importlinter.ini"):
        assert not (ROOT / rival).exists(), f"contracts in {rival} would be read instead"
    ended = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.findall(r"^(.+) KEPT$", ended.stdout, re.MULTILINE) == names
    assert f"Contracts: {len(names)} kept, 0 broken." in ended.stdout
    assert "lint-imports --no-cache\n" in (ROOT / "Makefile").read_text()


def test_a_room_of_the_router_loads_nothing_by_itself() -> None:
    rooms = [ROOT / "router" / "__init__.py", *(ROOT / "router").glob("*/__init__.py")]
    assert len(rooms) == 7
    for path in rooms:
        (docstring,) = ast.parse(path.read_text()).body
        assert isinstance(docstring, ast.Expr), f"{name_of(path)} does more than say what it is"


# Custody


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A portal as `portal init` leaves it, with the keys of all roles in reach."""
    directory = tmp_path_factory.mktemp("custody")
    made = make_shell(directory, f"sqlite:///{directory / 'portal.sqlite3'}")
    made.portal("init")
    return made


def keys_opened(shell: Shell) -> tuple[list[str], dict[str, int]]:
    """Serve in a process of its own; return the roles of opened keys, and each answer's status."""
    facts = run_program("tests.architecture.opened", shell.environment)
    keys = Path(shell.environment["PORTAL_DATA_DIR"]) / "keys"
    assert len(list(keys.glob("*.pem"))) == 5
    roles = [
        Path(path).name.partition("-")[0] for path in facts["opened"] if Path(path).parent == keys
    ]
    return sorted(roles), facts["statuses"]


@pytest.mark.slow
def test_a_web_process_opens_the_lease_key_and_no_other(shell: Shell) -> None:
    roles, statuses = keys_opened(shell)
    assert roles == ["lease"]
    assert (statuses["GET /readyz"], statuses["GET /v1/keyset.json"]) == (200, 200)
    assert statuses["POST /v1/leases"] == 400
    assert len(statuses) > 50
    assert {name for name, status in statuses.items() if status >= 500} == set()


@pytest.mark.parametrize("role", ["license", "revocation", "root"])
@pytest.mark.slow
def test_a_web_process_opens_no_other_key_whatever_the_database_says(
    shell: Shell, tmp_path: Path, role: str
) -> None:
    source = shell.directory / "portal.sqlite3"
    altered = tmp_path / "altered.sqlite3"
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(altered)) as after:
        before.backup(after)
        (uri,) = after.execute("SELECT uri FROM signing_keys WHERE role = ?", (role,)).fetchone()
        after.execute("UPDATE signing_keys SET uri = ? WHERE role = 'lease'", (uri,))
        after.execute("UPDATE signing_keys SET role = 'lease'")
        after.commit()
    environment = {**shell.environment, "PORTAL_DATABASE_URL": f"sqlite:///{altered}"}
    roles, statuses = keys_opened(Shell(shell.directory, environment))
    assert roles == []
    assert statuses["GET /readyz"] == 503


# Licensing is pure


@pytest.fixture(scope="module")
def pure() -> dict[str, Any]:
    """What importing `licensing` and verifying every vector touched."""
    return run_program("tests.architecture.pure", {"PATH": "/usr/bin:/bin"}, "-B")


def test_licensing_loads_msgspec_and_cryptography_and_nothing_else(pure: dict[str, Any]) -> None:
    theirs = {"_cffi_backend", "_openssl", "typing_extensions"}
    """What cryptography and msgspec bring along."""
    assert set(pure["foreign"]) - theirs == {"licensing", "msgspec", "cryptography"}
    assert not {"socket", "ssl", "http", "urllib.request", "subprocess"} & set(pure["modules"])


def test_licensing_reads_no_clock_file_environment_or_socket(pure: dict[str, Any]) -> None:
    assert pure["touched"] == []
    assert pure["count"] > 600
    assert {"valid", "expired", "revoked", "bad-signature"} <= set(pure["codes"])
    seen = {each.split()[0] for each in pure["noticed"]}
    assert seen == {"clock", "os", "open"}, "the hooks would not have noticed"
    assert sum(each.startswith("clock") for each in pure["noticed"]) == 2


def test_licensing_imports_nothing_to_read_them_with() -> None:
    outside = {
        "asyncio", "builtins", "datetime", "glob", "http", "io", "locale", "os", "pathlib",
        "platform", "random", "secrets", "shutil", "socket", "ssl", "subprocess", "sys",
        "tempfile", "time", "urllib", "uuid",
    }  # fmt: skip
    for path in sources("licensing"):
        tree = ast.parse(path.read_text())
        found = {name.partition(".")[0] for name in imported_names(tree).values()} & outside
        assert found == set(), f"{name_of(path)} imports {found}"
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not named & {"open", "input", "print", "exec", "eval", "__import__"}, name_of(path)


# The wall clock

CLOCK_FILES = {"portal/gateways/system.py", "router/clock.py"}
CLOCK_CALLS = {
    *(f"time.{name}" for name in ("time", "time_ns", "gmtime", "localtime", "ctime", "asctime")),
    *("time.strftime", "time.clock_gettime", "time.clock_gettime_ns"),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    *("datetime.date.today", "email.utils.localtime", "email.utils.formatdate"),
    *("wsgiref.handlers.format_date_time", "werkzeug.http.http_date"),
}
SQL_CLOCKS = {
    *("now", "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"),
    *("clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "sysdate"),
    *("julianday", "unixepoch"),
}
SQL_TEXT = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(\s*\)"
    r"|\bcurrent_(?:timestamp|date|time)\b|\blocaltimestamp\b"
    r"|\b(?:datetime|date|time|strftime|julianday|unixepoch)\s*\([^)]*'now'",
    re.IGNORECASE,
)
SQL_CLOCK_USES = {("portal/db/session.py", "clock_timestamp")}
"""Where this machine's clock is compared with the database's."""


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return what each name that was imported stands for, as a dotted path."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Return the dotted path an expression stands for; empty where it is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return ""


def docstrings(tree: ast.AST) -> set[int]:
    """Return the ids of the strings that stand as statements: they explain and do nothing."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def clock_readings(path: Path) -> Iterator[str]:
    """Yield each reading of a wall clock, Python's or the database's."""
    tree = ast.parse(path.read_text())
    names, explained = imported_names(tree), docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            meant = dotted(node, names)
            if meant in CLOCK_CALLS:
                yield meant
            root, _, last = meant.rpartition(".")
            if root == "sqlalchemy.func" and last.lower() in SQL_CLOCKS:
                yield last
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in explained
            and (found := SQL_TEXT.search(node.value))
        ):
            yield found[0]


def test_the_wall_clock_is_read_in_two_files() -> None:
    readings = {
        (name_of(path), reading)
        for path in sources(*PACKAGES, "migrations")
        for reading in clock_readings(path)
    }
    assert {file for file, _ in readings} == CLOCK_FILES | {file for file, _ in SQL_CLOCK_USES}
    assert {each for each in readings if each[0] not in CLOCK_FILES} == SQL_CLOCK_USES


@pytest.mark.parametrize(
    "text",
    [
        "import time\nat = time.time()",
        "from time import time as t\nat = t()",
        "import datetime\nat = datetime.datetime.utcnow()",
        "from datetime import datetime as d\nread = d.now",
        "from datetime import date\nat = date.today()",
        "from sqlalchemy import func\nfunc.now()",
        "import sqlalchemy as sa\nsa.func.current_timestamp()",
        "import sqlalchemy as sa\nsa.text('SELECT CURRENT_TIMESTAMP')",
        "statement = \"UPDATE jobs SET done_at = datetime('now')\"",
        "statement = f'SELECT {column} WHERE at < now ( )'",
    ],
)
def test_a_reading_of_the_clock_is_found(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reads.py"
    path.write_text(text)
    assert list(clock_readings(path))


# What pages may hold

OUR_MARKUP = {
    ("portal/web/templating.py", "path.read_text().strip()"): "icons, from our own files",
    ("portal/web/sign_ins.py", "code.svg_inline"): "the picture segno draws of a QR code",
    ("portal/web/courier.py", "code.svg_inline"): "the pictures segno draws of an answer",
}
"""Markup that is no literal text: what it is made of, and why nobody else wrote that."""
INLINE = re.compile(
    r"""<script(?![^>]*\ssrc=)|<script[^>]*>(?!\s*</script>)|javascript:|\ssrcdoc\s*="""
    r"""|<[a-z][^<>]*\s(?:on[a-z]+|hx-on[:a-z-]*)\s*=""",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", templates(), ids=name_of)
def test_a_template_has_no_inline_script_and_vouches_for_its_own_text_alone(path: Path) -> None:
    text = path.read_text()
    assert INLINE.search(text) is None, INLINE.search(text)
    if path.suffix not in (".html", ".txt"):
        return
    tree = Environment(extensions=["jinja2.ext.do"]).parse(text)
    for used in tree.find_all(nodes.Filter):
        is_literal = isinstance(used.node, nodes.Const | nodes.TemplateData)
        assert used.name != "safe" or is_literal, f"line {used.lineno}: safe on what is no literal"
    for modifier in tree.find_all(nodes.EvalContextModifier):
        assert not any(option.key == "autoescape" for option in modifier.options), modifier.lineno
    assert not list(tree.find_all(nodes.ScopedEvalContextModifier)), "autoescape is switched"


def test_python_marks_up_its_own_text_alone() -> None:
    used: set[tuple[str, str]] = set()
    for path in sources("portal"):
        tree = ast.parse(path.read_text())
        names = imported_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert INLINE.search(node.value) is None, f"{name_of(path)}: {node.value}"
            if not isinstance(node, ast.Call) or dotted(node.func, names) not in (
                "markupsafe.Markup",
                "flask.Markup",
                "jinja2.Markup",
            ):
                continue
            if all(isinstance(each, ast.Constant) for each in node.args):
                continue
            written = ast.unparse(node.args[0])
            allowed = [key for key in OUR_MARKUP if key[0] == name_of(path) and key[1] in written]
            assert allowed, f"{name_of(path)}:{node.lineno}: Markup({written})"
            used |= set(allowed)
    assert used == OUR_MARKUP.keys(), "an exception nobody needs any more"


@pytest.mark.parametrize(
    "text",
    [
        "<script>go()</script>",
        '<script src="/a.js">go()</script>',
        '<a href="javascript:go()">',
        "<button type=button onclick='go()'>",
        "<body\n onload = go()>",
        '<p hx-on:click="go()">',
    ],
)
def test_inline_script_is_found(text: str) -> None:
    assert INLINE.search(text)


# Files


@pytest.mark.parametrize("path", sources("portal/services"), ids=name_of)
def test_a_service_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_file_is_too_long_to_read() -> None:
    lengths = {
        name_of(path): len(path.read_text().splitlines())
        for path in sources(*PACKAGES, "devtools", "tests")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
