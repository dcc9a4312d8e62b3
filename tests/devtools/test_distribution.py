"""A distribution of the router: built, installed offline into an empty environment, and strict."""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.distribution import ROOT, DistributionError, build, check_keyset
from devtools.vectors.keys import LICENSE
from licensing.encoding import b64encode, sha256_hex
from licensing.envelope import Envelope, Signature, pae
from licensing.keys import Key, Keyset, Root
from licensing.verify import verify_keyset
from tests.router.papers import DAY_S
from tests.router.running import NOW, TodaysVendor, house

WHEELS = ROOT / ".venv" / "router-wheels"
EPOCH = 1_790_000_000


@dataclass
class Installed:
    """A distribution in an environment of its own."""

    vendor: TodaysVendor
    place: Path
    made: list[Path]
    env: dict[str, str] = field(
        default_factory=lambda: {
            "PATH": os.environ["PATH"],
            "PIP_NO_INDEX": "1",
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "LC_ALL": "C.UTF-8",
        }
    )

    @property
    def command(self) -> Path:
        """The installed `router-license`."""
        return self.place / "venv" / "bin" / "router-license"

    def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run `router-license`."""
        return subprocess.run(
            [str(self.command), *arguments],
            cwd=self.place,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def put(self, name: str, data: bytes) -> str:
        """Write a file."""
        (self.place / name).write_bytes(data)
        return name


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build once, install once."""
    place = tmp_path_factory.mktemp("distribution")
    vendor = TodaysVendor("a vendor with a distribution")
    (place / "keyset.json").write_bytes(vendor.keyset())
    made = build(place / "keyset.json", place / "dist", WHEELS, EPOCH)
    done = Installed(vendor, place, made)
    with tarfile.open(made[0]) as tar:
        tar.extractall(place, filter="data")
    (top,) = place.glob("smart-router-license-*")
    subprocess.run(
        ["sh", str(top / "install.sh"), str(place / "venv")],
        check=True,
        env={**done.env, "PYTHON": sys.executable},
        timeout=120,
    )
    return done


pytestmark = [pytest.mark.xdist_group("distribution"), pytest.mark.slow]


def test_two_builds_give_the_same_bytes(installed: Installed, tmp_path: Path) -> None:
    again = build(installed.place / "keyset.json", tmp_path, WHEELS, EPOCH)
    assert [each.read_bytes() for each in again] == [each.read_bytes() for each in installed.made]


def test_what_is_inside(installed: Installed) -> None:
    tarball, _, sums = installed.made
    assert f"{sha256_hex(tarball.read_bytes())}  {tarball.name}\n" in sums.read_text()
    (package,) = (installed.place / "venv" / "lib").glob("python3*/site-packages/router")
    assert (package / "documents" / "keyset.json").read_bytes() == installed.vendor.keyset()
    beside = {path.name for path in package.parent.iterdir()}
    assert beside & {"portal", "tests", "devtools", "flask", "sqlalchemy"} == set()


def test_a_license_verifies_with_the_keyset_inside(installed: Installed) -> None:
    name = installed.put("license.json", installed.vendor.license())
    done = installed.run("verify", name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "valid"
    assert installed.run("--help").returncode == 0


def foreign() -> bytes:
    """A keyset of somebody else."""
    return TodaysVendor("somebody else").keyset()


def unsigned_by_ours(vendor: TodaysVendor) -> bytes:
    """A higher version, signed by other roots alone."""
    return TodaysVendor("somebody else", version=2).keyset()


def successor(vendor: TodaysVendor) -> bytes:
    """Version 2, signed by the same root."""
    held = verify_keyset(vendor.keyset(), NOW)
    return vendor.keyset(version=2, prev_sha256=held.payload_sha256)


def with_test_key(vendor: TodaysVendor) -> bytes:
    """Version 2, which lists a published test key."""
    held = verify_keyset(vendor.keyset(), NOW)
    keys = (
        *held.document.keys,
        Key(
            keyid=LICENSE.keyid,
            alg="ed25519",
            public_key=LICENSE.public_key,
            role="license",
            status="active",
            not_before_at=0,
            not_after_at=2**40,
        ),
    )
    return vendor.keyset(version=2, prev_sha256=held.payload_sha256, keys=keys)


def test_a_keyset_counts_when_the_roots_inside_signed_it(installed: Installed) -> None:
    name = installed.put("license.json", installed.vendor.license())
    own = installed.put("own.json", installed.vendor.keyset())
    later = installed.put("later.json", successor(installed.vendor))
    for keyset in (own, later):
        assert installed.run("verify", name, "--keyset", keyset).returncode == 0


@pytest.mark.parametrize("which", ["foreign", "other-roots", "test-key"])
def test_any_other_keyset_is_refused(installed: Installed, which: str) -> None:
    keyset = {
        "foreign": foreign(),
        "other-roots": unsigned_by_ours(installed.vendor),
        "test-key": with_test_key(installed.vendor),
    }[which]
    name = installed.put("license.json", installed.vendor.license())
    other = installed.put("other.json", keyset)
    for done in (
        installed.run("verify", name, "--keyset", other),
        installed.run("verify", name, SMART_LLMROUTER_KEYSET=other),
    ):
        assert done.returncode in (3, 6, 7), done.stderr
        assert "other.json" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("enabled: false", "config rejects enabled: false"),
        ("fail_open_for_dev: true", "distribution"),
    ],
)
def test_settings_a_distribution_refuses(installed: Installed, setting: str, said: str) -> None:
    config = (
        "server:\n  listen: 127.0.0.1:0\n  license:\n"
        f"    path: license.json\n    state_path: state/s.json\n    {setting}\n"
    )
    name = installed.put("router.yaml", config.encode())
    for done in (installed.run("check-config", name), installed.run("serve", "--config", name)):
        assert done.returncode == 2
        assert said in done.stderr


def test_it_serves_with_nothing_but_its_configuration(installed: Installed, tmp_path: Path) -> None:
    with house(tmp_path) as built:
        built.vendor = installed.vendor
        built.install()
        built.launch(
            [str(installed.command), "serve", "--config", str(built.write_config())],
            installed.env,
        )
        assert built.chat().status == 200


def test_what_no_distribution_is_built_with() -> None:
    vendor = TodaysVendor()
    root = vendor.signers["root"]
    cases: dict[str, bytes] = {
        "not a keyset": vendor.license(),
        "half": vendor.keyset()[:400],
        "expired": vendor.keyset(expires_at=NOW - 1, issued_at=NOW - 9 * DAY_S),
        "with a test key": with_test_key(vendor),
    }
    keyset: Any = Keyset.parse(Envelope.parse(vendor.keyset()).payload)
    strange = Root(
        keyid=root.keyid, alg="ed25519", public_key=b64encode(vendor.signers["root"].public_key)
    )
    assert keyset.roots == (strange,)
    payload = keyset.to_bytes()
    wrong = vendor.signers["license"]
    signature = Signature(wrong.keyid, wrong.sign(pae(Keyset.PAYLOAD_TYPE, payload)))
    cases["not signed by its root"] = Envelope(
        payload, Keyset.PAYLOAD_TYPE, (signature,)
    ).to_bytes()
    for name, data in cases.items():
        with pytest.raises(DistributionError) as raised:
            check_keyset(data, NOW)
        assert "keyset" in str(raised.value), name
    check_keyset(vendor.keyset(), NOW)
