"""From nothing to a verified license and a renewed lease, by the contract's commands alone."""

import json
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.lease import Lease
from tests.cli.programs import Shell, free_port, make_shell, serving
from tests.spread import PROVE, examples

pytestmark = pytest.mark.slow

PASSWORD = "nobody expects this horse"
DATABASES = ["postgresql", "sqlite"] if PROVE else ["postgresql"]
"""The browser's journeys start the same commands over SQLite."""
LAST_SEQ = examples(4, 11)
"""Of the lease after the renewals."""


def init(shell: Shell) -> None:
    """Prepare the portal."""
    assert len(shell.portal("init", "--dev")["made"]) == 3


def make_staff(shell: Shell) -> str:
    """Make a staff person whose password comes from a file; return the id."""
    password = shell.directory / "password"
    password.write_text(f"{PASSWORD}\n")
    made = shell.portal(
        "staff",
        "create",
        *("--email", "ann@vendor.test", "--role", "approver,keys", "--password-file", password),
    )
    assert made["staff_id"].startswith("per_")
    return str(made["staff_id"])


def make_account(shell: Shell) -> str:
    """Make an account; return its id."""
    made = shell.portal("account", "create", "--name", "NewCo", "--owner-email", "jo@newco.example")
    return str(made["account_id"])


def issue(shell: Shell, account: str, staff: str, mode: str) -> tuple[str, dict[str, Any]]:
    """Issue and export a license to `<mode>.json`; return the deployment and the issued facts."""
    deployment = shell.portal("deployment", "create", "--account", account, "--name", mode)
    proposed = shell.portal(
        "entitlement",
        "create",
        *("--deployment", deployment["deployment_id"], "--sku", "pilot-30d", "--mode", mode),
        *("--term", "30d", "--limit", "max_instances=2", "--feature", "routing"),
        *("--feature", "usage_reporting", "--reason", "a pilot", "--by", staff),
    )
    assert proposed["status"] == "proposed"
    approved = shell.portal(
        "entitlement", "approve", proposed["entitlement_id"], "--by", "ann@vendor.test"
    )
    assert approved == {"entitlement_id": proposed["entitlement_id"], "status": "approved"}
    issued = shell.portal("license", "issue", "--entitlement", approved["entitlement_id"])
    assert issued["status"] == "issued"
    exported = shell.portal("license", "export", issued["license_id"], "--out", f"{mode}.json")
    content = (shell.directory / f"{mode}.json").read_bytes()
    assert issued["sha256"] == exported["sha256"] == sha256_hex(content)
    return deployment["deployment_id"], issued


def check_offline(shell: Shell, issued: dict[str, Any]) -> None:
    """Verify the offline license as a customer does."""
    shown = shell.portal("license", "show", issued["license_id"])
    assert (shown["license_id"], shown["sku"]) == (issued["license_id"], "pilot-30d")
    shell.portal("keys", "keyset", "--out", "keyset.json")
    verified = shell.router("verify", "offline.json", "--keyset", "keyset.json")
    assert verified["result"] == "valid"
    assert verified["license_id"] == issued["license_id"]
    assert verified["key_id"] == issued["key_id"]
    assert verified["features"] == ["routing", "usage_reporting"]
    assert verified["limits"]["max_instances"] == 2


def held(state_dir: Path) -> tuple[Lease, str]:
    """Return the lease a lease directory holds, and the SHA-256 of its payload."""
    stored = json.loads((state_dir / "lease-state.json").read_text())
    envelope = Envelope.parse(stored["lease"].encode())
    return Lease.parse(envelope.payload), sha256_hex(envelope.payload)


def check_leases(shell: Shell, deployment: str, state_dir: Path) -> None:
    """Enroll a router with a code from a file, then renew again and again."""
    made = shell.portal("enrollment-code", "create", "--deployment", deployment)
    assert made["expires_at"].endswith("Z")
    (shell.directory / "code").write_text(made["code"] + "\n")
    enrolled = shell.router(
        "enroll",
        *("--license", "lease.json", "--keyset", "keyset.json", "--label", "first"),
        *("--state-dir", state_dir, "--code-file", "code"),
    )
    assert (enrolled["status"], enrolled["seq"]) == ("serving", 1)
    _, before = held(state_dir)
    for seq in range(2, LAST_SEQ + 1):
        renewed = shell.router("renew", "--state-dir", state_dir)
        lease, sha256 = held(state_dir)
        assert (renewed["epoch"], renewed["seq"]) == (1, seq) == (lease.epoch, lease.seq)
        assert (lease.prev_sha256, lease.clone_warning) == (before, None)
        before = sha256
    assert made["code"] not in (shell.directory / "serve.log").read_text()


def check_held(shell: Shell, state_dir: Path) -> None:
    """With the portal gone the lease stands, and a renewal changes nothing but what is pending."""
    before = held(state_dir)
    renewed = shell.run("router-license", "renew", "--state-dir", state_dir, "--json")
    assert (renewed.status, renewed.facts["error"]["code"]) == (1, "unreachable")
    assert held(state_dir) == before
    status = shell.router("status", "--state-dir", state_dir)
    assert (status["status"], status["seq"], status["serves"]) == ("serving", LAST_SEQ + 1, True)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in state_dir.iterdir()} == {0o600}


def check_release(shell: Shell, state_dir: Path) -> None:
    """Give the lease up, and take it up again."""
    for _ in range(2):
        released = shell.router("release", "--state-dir", state_dir)
        assert (released["status"], released["serves"]) == ("released", False)
    ran = shell.run("router-license", "renew", "--state-dir", state_dir, "--json")
    assert (ran.status, ran.facts["error"]["code"]) == (1, "state")
    assert shell.router("renew", "--again", "--state-dir", state_dir)["status"] == "serving"


def check_log(shell: Shell) -> None:
    """Everything the server wrote is JSON, a record a line, in UTC."""
    records = [
        json.loads(line) for line in (shell.directory / "serve.log").read_text().splitlines()
    ]
    assert {"gunicorn.error", "portal.requests"} <= {record["logger"] for record in records}
    for record in records:
        assert datetime.fromisoformat(record["at"]).utcoffset() == timedelta(0)
        assert record["level"] in ("debug", "info", "warning", "error")


def check_doctor(shell: Shell) -> None:
    """The portal is healthy once a worker has run."""
    shell.portal("worker", "--once")
    well = shell.run("portal", "doctor", "--json")
    assert (well.status, well.facts["status"]) == (0, "healthy"), well.stdout


@pytest.mark.asvs("14.2.1")
# The browser's journeys start the same commands over SQLite.
@pytest.mark.parametrize(
    "database_url", ["postgresql", "sqlite"] if PROVE else ["postgresql"], indirect=True
)
def test_from_init_to_a_renewed_lease(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    shell = make_shell(tmp_path, database_url, port)
    shell.environment["PORTAL_SESSION_KEY_FILE"] = "session-key"
    shell.environment["PORTAL_LOG_LEVEL"] = "debug"
    init(shell)
    assert (tmp_path / "session-key").is_file(), "relative to the working directory"
    staff, account = make_staff(shell), make_account(shell)
    _, offline = issue(shell, account, staff, "offline")
    check_offline(shell, offline)
    deployment, _ = issue(shell, account, staff, "lease")
    with serving(shell, port):
        check_leases(shell, deployment, tmp_path / "lease")
        check_release(shell, tmp_path / "lease")
    check_log(shell)
    check_held(shell, tmp_path / "lease")
    check_doctor(shell)
