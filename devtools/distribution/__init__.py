"""Builds a distribution of the router: `make router-release KEYSET=keyset.json`.

It writes to `dist/router/`:

    smart-router-license-<version>-<platform>.tar.gz   the wheelhouse: wheels, install.sh
    Dockerfile                                         builds an image from the tarball beside it
    SHA256SUMS

Invariants: the keyset is the vendor's own and verifies; nothing of the portal or the tests is
inside; building one commit twice with the same keyset and wheels gives the same bytes.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from licensing.errors import LicensingError
from licensing.keys import Keyset
from licensing.verify import Verified, verify_keyset
from router.clock import unix_now
from router.documents.trust import refuse_test_keys

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
NAME: Final = "smart-router-license"
ROUTER_NEEDS: Final = "router"
"""The project's extra that lists the packages a router needs."""
LOCKED: Final = "locked.txt"
"""Lies beside the wheels: the lock they were downloaded by."""
_PIN: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", re.MULTILINE)

PROJECT: Final = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
description = "Verifies, enforces, meters and renews licenses of the GenAI Smart Router"
requires-python = ">=3.11"
dependencies = {dependencies}

[project.scripts]
router-license = "router.commands.cli:main"

[tool.setuptools.packages.find]
include = ["licensing*", "router*"]

[tool.setuptools.package-data]
"router.documents" = ["keyset.json"]
"""


class DistributionError(Exception):
    """A distribution cannot be built like this; the message says what to do."""


def check_keyset(data: bytes, at: int) -> Verified[Keyset]:
    """Verify the keyset that is to be built in.

    Raises:
        DistributionError: it does not verify, has expired, or lists a test key.
    """
    try:
        verified = verify_keyset(data, at)
        refuse_test_keys(verified.document)
    except LicensingError as error:
        raise DistributionError(f"the keyset cannot be built in: {error.detail}") from error
    if at >= verified.document.expires_at:
        raise DistributionError("the keyset has expired: build with the current one of the portal")
    return verified


def version() -> str:
    """Return the project's version."""
    return str(_project()["version"])


def needs() -> list[str]:
    """Return the direct dependencies of a router, as the project declares them."""
    table = _project()
    own: list[str] = table["dependencies"]
    extra: list[str] = table["optional-dependencies"][ROUTER_NEEDS]
    return [*own, *extra]


def _project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def pinned() -> dict[str, str]:
    """Return the lock's blocks, with hashes, for every package a router needs; by package."""
    text = (ROOT / "requirements.txt").read_text()
    starts = list(_PIN.finditer(text))
    blocks = {
        found[1]: text[found.start() : after.start() if after else len(text)].rstrip()
        for found, after in zip(starts, [*starts[1:], None], strict=True)
    }
    wanted: set[str] = set()
    open_names = [_name_of(each) for each in needs()]
    while open_names:
        name = open_names.pop()
        if name in wanted or name not in blocks:
            continue
        wanted.add(name)
        open_names += [
            _name_of(each) for each in distribution(name).requires or [] if "extra ==" not in each
        ]
    return {name: blocks[name] for name in sorted(wanted)}


def _name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def locked_text() -> str:
    """Return the part of the lock that a router needs."""
    return "\n".join(pinned().values()) + "\n"


def download_wheels(directory: Path) -> None:
    """Download the wheels a router needs on this platform, checked against the lock."""
    directory.mkdir(parents=True, exist_ok=True)
    locked, text = directory / LOCKED, locked_text()
    if locked.is_file() and locked.read_text() == text:
        return
    for old in directory.glob("*.whl"):
        old.unlink()
    unfinished = directory / "locked.new"
    unfinished.write_text(text)
    _pip(
        "download",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        f"--requirement={unfinished}",
        f"--dest={directory}",
    )
    unfinished.rename(locked)


def build_wheel(keyset: bytes, directory: Path, epoch: int) -> Path:
    """Build the wheel with the keyset inside."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for source in [*(ROOT / "licensing").rglob("*.py"), *(ROOT / "router").rglob("*.py")]:
            target = place / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        shutil.copy(ROOT / "LICENSE", place / "LICENSE")
        (place / "router" / "documents" / "keyset.json").write_bytes(keyset)
        text = PROJECT.format(name=NAME, version=version(), dependencies=needs())
        (place / "pyproject.toml").write_text(text.replace("'", '"'))
        for path in place.rglob("*"):
            os.utime(path, (epoch, epoch))
        _pip(
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            f"--wheel-dir={directory}",
            str(place),
            environment={"SOURCE_DATE_EPOCH": str(epoch)},
        )
    (wheel,) = directory.glob(f"{NAME.replace('-', '_')}-*.whl")
    return wheel


def build(keyset_path: Path, output: Path, wheels: Path, epoch: int) -> list[Path]:
    """Build everything and return the files.

    Raises:
        DistributionError: the keyset cannot be built in.
        OSError, subprocess.CalledProcessError: building failed.
    """
    keyset = keyset_path.read_bytes()
    check_keyset(keyset, unix_now())
    if not (wheels / LOCKED).is_file() or (wheels / LOCKED).read_text() != locked_text():
        raise DistributionError(
            f"{wheels} does not hold the locked wheels: "
            "python -m devtools.distribution --only-download"
        )
    platform = sysconfig.get_platform().replace("-", "_")
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    top = f"{NAME}-{version()}-{python}-{platform}"
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        own = build_wheel(keyset, Path(scratch), epoch)
        files = {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels.glob("*.whl")}
        files[f"wheels/{own.name}"] = own.read_bytes()
    files["requirements.txt"] = _requirements(files)
    files["install.sh"] = (HERE / "install.sh").read_bytes()
    files["keyset.sha256"] = f"{_sha256(keyset)}  keyset.json\n".encode()
    tarball = output / f"{top}.tar.gz"
    tarball.write_bytes(_pack(top, files, epoch))
    dockerfile = output / "Dockerfile"
    text = (HERE / "Dockerfile").read_text()
    dockerfile.write_text(text.replace("@TARBALL@", tarball.name).replace("@TOP@", top))
    made = [tarball, dockerfile]
    sums = output / "SHA256SUMS"
    sums.write_text("".join(f"{_sha256(each.read_bytes())}  {each.name}\n" for each in made))
    return [*made, sums]


def _requirements(files: dict[str, bytes]) -> bytes:
    """Return requirements that pin every wheel of the wheelhouse by its hash."""
    lines = []
    for path, data in sorted(files.items()):
        name, version = path.removeprefix("wheels/").split("-")[:2]
        lines.append(f"{_name_of(name)}=={version} --hash=sha256:{_sha256(data)}\n")
    return "".join(lines).encode()


def _pack(top: str, files: dict[str, bytes], epoch: int) -> bytes:
    held = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=held, mode="wb", mtime=epoch, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size, entry.mtime = len(data), epoch
            entry.mode = 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return held.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        check=True,
        env={**os.environ, **(environment or {})},
    )


def commit_time() -> int:
    """Return when the current commit was made (Unix time)."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    shown = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(shown.stdout)
