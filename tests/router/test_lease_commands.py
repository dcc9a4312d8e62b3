"""`router-license enroll`, `renew` and `status` on a real directory against a real server."""

import json
import os
import sys
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from portal.db.licenses import Hold
from portal.services.keys import published_keyset, unix
from router.commands.cli import main
from router.commands.options import CODE_VARIABLE, KEYSET_VARIABLE
from tests.fakes import FakeClock
from tests.router.network import instead, lost_request
from tests.router.papers import AT, Vendor
from tests.router.site import COMMAND, Site


@dataclass(frozen=True)
class Host:
    """A site's files, and the command run over them in this process."""

    site: Site
    directory: Path
    captured: pytest.CaptureFixture[str]

    def run(self, *arguments: str, at: int | None = None) -> tuple[int, dict[str, Any]]:
        """Run a command; return its exit code and the object it printed."""
        now = unix(self.site.transactions.ports.clock.now()) if at is None else at
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--as-of", str(now), "--json"])
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(self.captured.readouterr().out)

    def enroll(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Enroll as the page of a deployment says."""
        files = [f"--license={self.directory / 'license.json'}"]
        files += [f"--keyset={self.directory / 'keyset.json'}"]
        return self.run("enroll", *files, *self.place, *arguments)

    def renew(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Renew with what was remembered."""
        return self.run("renew", *self.place, *arguments)

    def release(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Give the lease up."""
        return self.run("release", *self.place, *arguments)

    def status(self, at: int | None = None) -> tuple[int, dict[str, Any]]:
        """Look at the lease."""
        return self.run("status", "--state-dir", str(self.site.directory), at=at)

    @property
    def place(self) -> tuple[str, ...]:
        """Where the lease is, and where the portal listens."""
        return ("--state-dir", str(self.site.directory), "--url", self.site.network.url)


@pytest.fixture
def host(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Host:
    for name in (KEYSET_VARIABLE, CODE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with site.transactions.reading(COMMAND) as context:
        (tmp_path / "keyset.json").write_bytes(published_keyset(context).envelope)
    assert site.license.envelope is not None
    (tmp_path / "license.json").write_bytes(site.license.envelope)
    (tmp_path / "code").write_text(f"{site.code}\n")
    return Host(site, tmp_path, capsys)


@pytest.mark.asvs("14.2.1")
@pytest.mark.parametrize("by", ["file", "standard input", "environment"])
def test_a_code_comes_by_file_stdin_or_environment(
    host: Host, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    code = host.site.code
    if by == "file":
        arguments: tuple[str, ...] = ("--code-file", str(host.directory / "code"))
    elif by == "standard input":
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(f"{code}\r\n".encode())))
        arguments = ("--code-file", "-")
    else:
        monkeypatch.setenv(CODE_VARIABLE, code)
        arguments = ()
    status, facts = host.enroll(*arguments)
    assert (status, facts["status"], facts["seq"]) == (0, "serving", 1)
    assert code not in json.dumps(facts)
    assert not any(code.encode() in path.read_bytes() for path in host.site.directory.iterdir()), (
        "the code was kept"
    )


def test_without_a_code_nothing_is_asked(host: Host) -> None:
    (host.directory / "code").write_text("\n")
    for arguments in ((), ("--code-file", str(host.directory / "code"))):
        status, facts = host.enroll(*arguments)
        assert (status, facts["error"]["code"]) == (2, "usage")
        assert CODE_VARIABLE in facts["error"]["message"]
    assert host.site.network.seen == []


def test_renewing_remembers_where_license_and_keyset_are(host: Host) -> None:
    before = Path.cwd()
    os.chdir(host.directory)
    try:
        host.run(
            "enroll",
            *("--license", "license.json", "--keyset", "keyset.json", "--code-file", "code"),
            *host.place,
        )
    finally:
        os.chdir(before)
    assert host.renew()[1]["seq"] == 2
    (host.directory / "license.json").unlink()
    status, facts = host.renew()
    assert (status, facts["error"]["code"]) == (1, "io")
    assert str(host.directory / "license.json") in facts["error"]["message"]


def test_what_the_portal_refuses_ends_with_4(host: Host) -> None:
    (host.directory / "code").write_text("A" * 32)
    status, facts = host.enroll("--code-file", str(host.directory / "code"))
    assert status == 4
    assert facts["error"]["code"] == "enrollment-refused"
    assert facts["error"]["status"] == 403
    assert facts["error"]["next_action"]


def test_what_a_forger_wrote_moves_no_cursor(host: Host) -> None:
    host.enroll("--code-file", str(host.directory / "code"))
    body = {"status": 403, "code": "x\x1b[2J", "detail": "a\x1b]0;b\x07", "next_action": "\x9b"}
    fault = instead(json.dumps(body), 403, "application/problem+json")
    host.site.network.faults.append(fault)
    with pytest.raises(SystemExit):
        main(["renew", *host.place, "--as-of", str(unix(host.site.transactions.ports.clock.now()))])
    out, err = host.captured.readouterr()
    assert not {"\x1b", "\x07", "\x9b"} & set(out + err)
    assert "\\x1b" in err


def test_the_exit_codes_of_status(host: Host, clock: FakeClock) -> None:
    status, facts = host.status()
    assert (status, facts["error"]["code"]) == (2, "usage")
    host.site.directory.mkdir(mode=0o700)
    status, facts = host.status()
    assert (status, facts["status"]) == (7, "not-enrolled")
    status, facts = host.renew("--license", str(host.directory / "license.json"))
    assert (status, facts["error"]["code"]) == (2, "usage"), "no keyset is known yet"
    _, enrolled = host.enroll("--code-file", str(host.directory / "code"))
    expires_at, grace_until_at = enrolled["expires_at"], enrolled["grace_until_at"]
    assert expires_at < grace_until_at
    for at, exit_code, shown in (
        (expires_at - 1, 0, "serving"),
        (expires_at, 0, "in-grace"),
        (grace_until_at - 1, 0, "in-grace"),
        (grace_until_at, 5, "expired"),
    ):
        status, facts = host.status(at)
        assert (status, facts["status"], facts["serves"]) == (exit_code, shown, exit_code == 0)
    low, high = host.site.held.renew_at
    assert low <= enrolled["renews_at"] <= high
    with host.site.transactions.writing(COMMAND) as context:
        hold = Hold(id="hld_1", cause="dispute", reason="x", opened_at=context.at)
        hold.entitlement_id = host.site.license.entitlement_id
        context.session.add(hold)
    status, facts = host.renew()
    assert (status, facts["status"]) == (0, "suspended")
    status, facts = host.status()
    assert (status, facts["serves"], facts["reason"]) == (6, False, "on-hold")
    with host.site.transactions.writing(COMMAND) as context:
        context.session.query(Hold).update({"lifted_at": context.at})
    clock.advance(minutes=5)
    assert host.renew()[1]["status"] == "serving"
    assert host.status()[0] == 0


def test_a_lease_is_released_and_taken_up_again(host: Host) -> None:
    status, facts = host.release()
    assert (status, facts["error"]["code"]) == (1, "state")
    host.enroll("--code-file", str(host.directory / "code"))
    for _ in range(2):
        status, facts = host.release()
        assert (status, facts["status"], facts["serves"]) == (0, "released", False)
        assert "renews_at" not in facts
    assert [each.path for each in host.site.network.seen] == ["/v1/enrollments", "/v1/releases"]
    status, facts = host.status()
    assert (status, facts["status"], facts["release_pending"]) == (6, "released", False)
    status, facts = host.renew()
    assert (status, facts["error"]["code"]) == (1, "state")
    assert "renew --again" in facts["error"]["message"]
    (host.directory / "license.json").rename(host.directory / "elsewhere.json")
    assert host.release()[0] == 0, "what is done needs no license"
    status, facts = host.renew("--again", "--license", str(host.directory / "elsewhere.json"))
    assert (status, facts["status"], facts["seq"]) == (0, "serving", 2)
    assert host.status()[0] == 0


def test_a_release_that_got_no_answer_is_shown(host: Host) -> None:
    host.enroll("--code-file", str(host.directory / "code"))
    host.site.network.faults.append(lost_request)
    status, facts = host.release()
    assert (status, facts["error"]["code"]) == (1, "unreachable")
    status, facts = host.status()
    assert (status, facts["status"], facts["release_pending"]) == (0, "serving", True)
    assert "renews_at" not in facts


def test_a_license_that_works_offline_needs_no_lease(host: Host) -> None:
    vendor = Vendor()
    (host.directory / "keyset.json").write_bytes(vendor.keyset())
    (host.directory / "license.json").write_bytes(vendor.license())
    files = [f"--{name}={host.directory / name}.json" for name in ("license", "keyset")]
    files += [f"--code-file={host.directory / 'code'}"]
    status, facts = host.run("enroll", *files, *host.place, at=AT)
    assert (status, facts["error"]["code"]) == (2, "usage")
    assert "offline" in facts["error"]["message"]


def test_a_refused_license_leaves_no_directory_behind(host: Host) -> None:
    data = (host.directory / "license.json").read_bytes()
    (host.directory / "license.json").write_bytes(data[:-9])
    status, facts = host.enroll("--code-file", str(host.directory / "code"))
    assert (status, facts["code"]) == (3, "malformed-envelope")
    assert not host.site.directory.exists()


def test_the_url_must_be_one_that_codes_may_go_to(host: Host) -> None:
    status, facts = host.enroll(
        "--code-file", str(host.directory / "code"), "--url", "http://licenses.example.com"
    )
    assert (status, facts["error"]["code"]) == (2, "usage")
    assert not host.site.directory.exists()
