"""The package: what it declares, and that its wheel runs without a checkout beside it."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.cli.programs import free_port, wait_until_ready
from tests.router.running import TodaysVendor

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = sysconfig.get_path("purelib")
RUN_S = 60

pytestmark = pytest.mark.xdist_group("package")


# What is declared


def name_of(requirement: str) -> str:
    """Return the normalized name of the package a requirement is for."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def declared(*extras: str) -> set[str]:
    """Return the packages an installation with these extras brings directly."""
    listed = [*PROJECT["dependencies"]]
    for extra in extras:
        listed += PROJECT["optional-dependencies"][extra]
    return {name_of(each) for each in listed}


def imported(package: str) -> set[str]:
    """Return the top-level modules that a package's files import from elsewhere."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    tops = {name.partition(".")[0] for name in found}
    return tops - set(sys.stdlib_module_names) - {"licensing", "router", "portal"}


@pytest.mark.parametrize(
    ("package", "extras"), [("licensing", ()), ("router", ("router",)), ("portal", ("portal",))]
)
def test_what_is_imported_is_declared(package: str, extras: tuple[str, ...]) -> None:
    brought_by = packages_distributions()
    used = {name_of(brought_by[module][0]) for module in imported(package)}
    assert used
    assert used <= declared(*extras)


def test_what_is_declared_is_locked_by_name_and_hash() -> None:
    wanted = declared("router", "portal")
    lines = (ROOT / "requirements.in").read_text().splitlines()
    assert {name_of(line) for line in lines} == wanted
    locked = re.findall(r"^([a-z0-9.-]+)(?:\[[a-z]+\])?==\S+ \\\n +--hash=", lock(), re.MULTILINE)
    assert wanted <= set(locked)


def lock() -> str:
    """Return the text of the lock."""
    return (ROOT / "requirements.txt").read_text()


def test_the_license_file_is_named_wherever_a_license_is() -> None:
    described = json.loads((ROOT / "docs" / "openapi.json").read_text())["info"]["license"]
    assert described["identifier"] == PROJECT["license"]
    (file,) = PROJECT["license-files"]
    assert file in described["name"]
    assert (ROOT / file).read_text().strip()


# The wheel


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment that knows no checkout."""

    place: Path
    wheel: Path

    def environment(self, dependencies: str) -> dict[str, str]:
        """Return what a command is told; `dependencies` is where it finds other packages."""
        return {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": dependencies,
            "PORTAL_DATA_DIR": str(self.place / "data"),
        }

    def run(
        self, command: str, *arguments: str, dependencies: str = DEPENDENCIES
    ) -> "subprocess.CompletedProcess[str]":
        """Run an installed command to its end."""
        return subprocess.run(
            [self.place / "venv" / "bin" / command, *arguments],
            cwd=self.place,
            env=self.environment(dependencies),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build a source distribution, from it a wheel, and install that."""
    place = tmp_path_factory.mktemp("package")
    source, unpacked = place / "source", place / "unpacked"
    source.mkdir()
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.check_output(tracked, cwd=ROOT, text=True).split("\0"):
        if name.startswith(("tests/", "devtools/")) or not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build(source, "sdist", place)
    with tarfile.open(next(place.glob("*.tar.gz"))) as tar:
        tar.extractall(unpacked, filter="data")
    (top,) = unpacked.iterdir()
    build(top, "wheel", place)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "venv" / "bin" / "python")]
    arguments = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", str(wheel)]
    subprocess.run([*pip, *arguments], check=True, timeout=RUN_S)
    for gone in (source, unpacked):
        shutil.rmtree(gone)
    return Installed(place, wheel)


def build(source: Path, kind: str, output: Path) -> None:
    """Build a distribution with the setuptools at hand."""
    program = f"from setuptools import build_meta as b; b.build_{kind}({str(output)!r})"
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=source,
        stdout=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
        check=True,
        timeout=RUN_S,
    )


def test_the_wheel_holds_every_file_the_portal_reads(installed: Installed) -> None:
    with ZipFile(installed.wheel) as zipped:
        inside = {name for name in zipped.namelist() if not name.endswith("/")}
    wanted = {"docs/openapi.json", "gunicorn.conf.py", "wsgi.py"} | {
        path.relative_to(ROOT).as_posix()
        for folder in ("templates", "static", "migrations")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in inside if name.startswith("portal/files/")} == {
        f"portal/files/{name}" for name in wanted
    }
    assert {name.partition("/")[0] for name in inside if ".dist-info/" not in name} == {
        "licensing",
        "portal",
        "router",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)
    assert {"licensing/vectors/license.json", "router/vectors/sequences.json"} <= inside


def test_an_editable_install_copies_nothing() -> None:
    assert not (ROOT / "portal" / "files").exists()


@pytest.fixture
def origin(installed: Installed) -> Iterator[str]:
    """Run `portal init --dev` and `portal serve` from the wheel."""
    made = installed.run("portal", "init", "--dev", "--json")
    assert made.returncode == 0, made.stderr
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (installed.place / "serve.log").open("w+") as log:
        server = subprocess.Popen(
            [installed.place / "venv" / "bin" / "portal", "serve", "--port", str(port)],
            cwd=installed.place,
            env=installed.environment(DEPENDENCIES),
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_ready(f"{url}/readyz", server, Path(log.name))
            yield url
        finally:
            server.terminate()
            server.wait(RUN_S)


def test_a_portal_from_the_wheel_serves(installed: Installed, origin: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/healthz", "/", "/static/css/shell.css", "/v1/openapi.json", "/v1/keyset.json"):
        with opener.open(f"{origin}{path}", timeout=10) as answer:
            assert answer.status == 200, path
            body = answer.read()
        if path == "/v1/openapi.json":
            assert body == (ROOT / "docs" / "openapi.json").read_bytes()
    upgraded = installed.run("portal", "db", "upgrade", "--json")
    assert (
        json.loads(upgraded.stdout)["schema"]
        == json.loads(installed.run("portal", "init", "--json").stdout)["schema"]
    )


# Without extras


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with what the package needs without any extra, and no more."""
    folder = tmp_path_factory.mktemp("bare")
    open_names = sorted(declared())
    seen = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        open_names += [name_of(each) for each in found.requires or [] if "extra ==" not in each]
        for top in {Path(str(file)).parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            (folder / top).symlink_to(Path(DEPENDENCIES) / top)
    return str(folder)


def test_without_extras_the_router_verifies(installed: Installed, bare: str) -> None:
    vendor = TodaysVendor()
    (installed.place / "license.json").write_bytes(vendor.license())
    (installed.place / "keyset.json").write_bytes(vendor.keyset())
    arguments = ["verify", "license.json", "--keyset", "keyset.json", "--json"]
    ran = installed.run("router-license", *arguments, dependencies=bare)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["result"] == "valid"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("portal", ["init", "--dev"]),
        ("portal", ["--help"]),
        ("router-license", ["check-config", "router.yaml"]),
        ("router-license", ["serve", "--config", "router.yaml"]),
    ],
)
def test_a_missing_extra_is_named(
    installed: Installed, bare: str, command: str, arguments: list[str]
) -> None:
    extra = {"portal": "portal", "router-license": "router"}[command]
    ran = installed.run(command, *arguments, dependencies=bare)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"{command}: ")
    assert f"smart-router-licenses[{extra}]" in line
    told = installed.run(command, *arguments, "--json", dependencies=bare)
    assert json.loads(told.stdout)["error"]["message"] in line
