"""A router without a network: requests leave as files, answers come as files or scanned codes."""

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from devtools.simulator import Simulator
from licensing.courier import from_parts, to_parts
from licensing.lease import Lease
from licensing.license import Budget
from router.clock import unix_now
from router.commands.cli import main
from router.lease.store import LeaseState, LeaseStore
from router.state.store import StateFile
from tests.router.leasing import Leased, leased
from tests.router.papers import identifier


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Vault:
    """A site without a network, and a portal somewhere else."""

    directory: Path
    portal: Simulator

    def put(self, name: str, data: bytes) -> Path:
        """Carry a file in."""
        path = self.directory / name
        path.write_bytes(data)
        return path

    def run(self, *arguments: Any, text: str = "") -> Ended:
        """Type a command, which runs in this process."""
        typed, out, err = (TextIOWrapper(BytesIO()) for _ in range(3))
        typed.write(text)
        typed.seek(0)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "stdin", typed)
            with pytest.raises(SystemExit) as ended:
                main([str(each) for each in arguments])
        assert isinstance(ended.value.code, int)
        out.seek(0)
        err.seek(0)
        return Ended(ended.value.code, out.read(), err.read())

    @property
    def lease_directory(self) -> Path:
        """Where the lease is kept."""
        return self.directory / "lease"

    @property
    def state(self) -> LeaseState:
        """What is remembered there."""
        return LeaseStore(self.lease_directory).load()

    @property
    def lease(self) -> Lease:
        """The lease at hand."""
        lease = self.state.held()
        assert lease is not None
        return lease

    def request(self, *more: Any) -> bytes:
        """Write a request; return what is in the file."""
        out = self.directory / "request.json"
        done = self.run(
            "courier", "request", "--state-dir", self.lease_directory, "--out", out, *more
        )
        assert done.returncode == 0, done.stderr
        return out.read_bytes()

    def enroll_request(self) -> bytes:
        """Write the request that enrolls."""
        code = self.put("code", self.portal.code().encode())
        license_ = self.put("license.json", self.portal.license)
        keyset = self.put("keyset.json", self.portal.db.keysets[0])
        return self.request("--license", license_, "--keyset", keyset, "--code-file", code)

    def answer(self, request: bytes) -> dict[str, Any]:
        """Upload a request; return what the portal's page gives."""
        value = json.loads(request)
        signed = value.get("request", value)
        enrolls = "enrollment-request" in signed["payloadType"]
        path = "/v1/enrollments" if enrolls else "/v1/leases"
        answer = self.portal.handle("POST", path, request)
        assert answer.status in (200, 201), answer.body
        body = json.loads(answer.body)
        return {
            **(body if enrolls else {"lease": body}),
            "license": json.loads(self.portal.license),
            "revocation_bundle": json.loads(self.portal.bundle),
            "keyset": json.loads(self.portal.keyset),
        }

    def install(self, answer: Any) -> Ended:
        """Carry an answer in and install it."""
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        path = self.put("answer.json", data)
        return self.run("courier", "install", path, "--state-dir", self.lease_directory, "--json")

    def enroll(self) -> None:
        """Enroll by courier."""
        done = self.install(self.answer(self.enroll_request()))
        assert done.returncode == 0, done.stderr


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """Not enrolled."""
    return Vault(tmp_path, Simulator(unix_now))


def test_enrolling_and_renewing_by_files_make_one_chain(vault: Vault) -> None:
    vault.enroll()
    for seq in (2, 3):
        request = vault.request()
        assert vault.request() != b""
        done = vault.install(vault.answer(request))
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert (shown["seq"], shown["status"], shown["by_courier"]) == (seq, "serving", True)
    assert [act for act, _ in vault.portal.log] == ["enrolled", "renewed", "renewed"]


def test_a_file_that_is_uploaded_or_installed_again_changes_nothing(vault: Vault) -> None:
    vault.enroll()
    request = vault.request()
    first, second = vault.answer(request), vault.answer(request)
    assert first == second
    assert vault.install(first).returncode == 0
    before = vault.state
    assert vault.install(first).returncode == 0
    assert vault.state == before


def test_a_request_that_is_written_again_is_the_same_request(vault: Vault) -> None:
    vault.enroll()
    vault.answer(vault.request())
    # The answer is lost on the way; the next file asks for the same.
    done = vault.install(vault.answer(vault.request()))
    assert done.returncode == 0
    assert vault.lease.seq == 2
    assert vault.portal.log[-1][0] == "renewed"
    assert len(vault.portal.log) == 2


def test_codes_carry_what_files_do(vault: Vault) -> None:
    vault.enroll()
    shown = vault.run("courier", "request", "--state-dir", vault.lease_directory, "--qr")
    assert shown.returncode == 0
    assert "part 1 of" in shown.stderr
    request = from_parts(shown.stdout.splitlines())
    answer = json.dumps(vault.answer(request)).encode()
    scanned = "\n".join(reversed(to_parts(answer)))
    done = vault.install(scanned.encode())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seq"] == 2


def test_what_comes_along_is_taken_up(vault: Vault) -> None:
    vault.enroll()
    request = vault.request()
    vault.portal.issue(budget=Budget(budget_id=identifier("bud", 9), tokens_total=77))
    vault.portal.rotate()
    vault.portal.publish_bundle()
    done = vault.install(vault.answer(request))
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout)["installed"]
    assert taken == ["lease", "keyset", "license", "revocation_bundle"]
    # The next request is for the license that came along.
    assert vault.install(vault.answer(vault.request())).returncode == 0
    assert vault.lease.license_revision == 2


def test_the_lease_goes_along_where_the_portal_asks_for_it(vault: Vault) -> None:
    vault.enroll()
    backup = vault.portal.backup()
    assert vault.install(vault.answer(vault.request())).returncode == 0
    vault.portal.restore(backup)
    refused = vault.portal.handle("POST", "/v1/leases", vault.request())
    assert json.loads(refused.body)["code"] == "previous-lease-required"
    done = vault.install(refused.body)
    assert done.returncode == 1
    assert "the portal refused" in done.stderr
    assert vault.install(vault.answer(vault.request("--with-lease"))).returncode == 0
    assert vault.portal.log[-2:] == [
        ("adopted", vault.state.instance_id),
        ("renewed", vault.state.instance_id),
    ]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda answer: b"", "not-an-answer"),
        (lambda answer: b"\xff\xfe", "not-an-answer"),
        (lambda answer: b"[]", "not-an-answer"),
        (lambda answer: {"license": answer["license"]}, "not-an-answer"),
        (lambda answer: {**answer, "lease": answer["license"]}, "wrong-type"),
        (lambda answer: {**answer, "license": answer["lease"]}, "wrong-type"),
        (lambda answer: b"SRC1/1/2/00000000/AAAA", "not-an-answer"),
    ],
)
def test_what_is_no_answer_is_refused_and_changes_nothing(
    vault: Vault, spoil: Any, code: str
) -> None:
    vault.enroll()
    answer = vault.answer(vault.request())
    before = vault.state
    done = vault.install(spoil(answer))
    assert done.returncode in (1, 3)
    shown = json.loads(done.stdout)
    assert shown.get("code", shown.get("error", {}).get("code")) == code
    assert "Traceback" not in done.stderr
    assert vault.state == before
    assert vault.install(answer).returncode == 0, "nothing was lost"


def test_the_answer_to_another_request_is_not_installed(vault: Vault) -> None:
    vault.enroll()
    old = vault.answer(vault.request())
    assert vault.install(old).returncode == 0
    vault.request()
    newer = vault.answer(vault.request())
    assert vault.install(newer).returncode == 0
    vault.request()
    done = vault.install(old)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "lease-rejected"


def test_what_is_missing_is_asked_for(vault: Vault) -> None:
    license_ = vault.put("license.json", vault.portal.license)
    keyset = vault.put("keyset.json", vault.portal.keyset)
    directory = vault.lease_directory
    base = ("courier", "request", "--state-dir", directory, "--keyset", keyset)
    done = vault.run(*base, "--license", license_)
    assert done.returncode == 2
    assert "--code-file" in done.stderr
    code = vault.put("code", vault.portal.code().encode())
    done = vault.run(*base, "--code-file", code)
    assert done.returncode == 2
    assert "--license" in done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Leased]:
    """A router that runs and cannot reach the portal."""
    with leased(tmp_path) as made:
        made.enroll()
        made.cut_off()
        yield made


def test_a_router_that_runs_takes_up_what_is_installed_and_reports_its_usage(
    site: Leased,
) -> None:
    site.start()
    for _ in range(2):
        assert site.house.chat().status == 200
    site.house.stop()
    directory = site.store.directory
    site.store.save(replace(site.state, state_path=str(site.house.state_file)))
    site.start()
    vault = Vault(directory.parent, site.portal)
    files = (
        *("--license", site.house.license_file),
        *("--keyset", site.house.keyset_file),
    )
    request = vault.request(*files)
    answer = vault.put("answer.json", json.dumps(vault.answer(request)).encode())
    done = vault.run("courier", "install", answer, "--state-dir", directory, *files)
    assert done.returncode == 0, done.stderr
    site.wait_until("installed", lambda facts: facts["lease"]["seq"] == 2)
    (instance,) = site.portal.db.instances.values()
    assert instance.usage is not None
    assert instance.usage[1] == 24
    site.house.stop()
    file = StateFile(site.house.state_file)
    anchor = file.open().time.anchor
    file.close()
    assert anchor is None, "a file tells no time"
