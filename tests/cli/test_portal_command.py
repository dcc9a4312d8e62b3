"""`portal`: what it refuses and how it says so, with real settings, keys and databases."""

import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from devtools.postgres import Cluster
from licensing.encoding import sha256_hex
from licensing.verify import KeysetTrust, verify_keyset, verify_license
from portal.cli.wired import COMMAND
from portal.config import BadSetting, load_settings
from portal.db import migrate
from portal.db.heartbeats import beat
from portal.db.keys import KeysetVersion
from portal.jobs.worker import WORKER_BEAT
from portal.services.audit_seals import seal_committed
from portal.services.bundles import publish_bundle
from portal.services.keys import unix
from tests.cli.operators import Operator, one_object
from tests.cli.programs import make_shell
from tests.databases import fresh_database

SECRETS = {
    "PORTAL_KEY_PASSPHRASE_FILE": "key-passphrase",
    "PORTAL_SESSION_KEY_FILE": "session-key",
    "PORTAL_DATA_KEY_FILE": "data-key",
}


def test_init_makes_all_that_is_missing_and_nothing_twice(nobody: Operator) -> None:
    first = nobody.ask("init")
    assert {Path(path).name for path in first["made"]} == set(SECRETS.values())
    assert (first["schema"], first["keyset_version"]) == (migrate.head(), 1)
    private = [*(nobody.data_dir / "secrets").iterdir(), *(nobody.data_dir / "keys").iterdir()]
    assert len(private) == 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in private} == {0o700}
    before = {path: path.read_bytes() for path in private}
    keys = nobody.ask("keys", "list")
    for flags in ((), ("--dev",)):
        assert nobody.ask("init", *flags) == {**first, "made": []}
    assert {path: path.read_bytes() for path in private} == before
    assert nobody.ask("keys", "list") == keys


@pytest.mark.parametrize("setting", SECRETS)
def test_init_makes_no_secret_that_somebody_else_shall_bring(
    nobody: Operator, tmp_path: Path, setting: str
) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    secret = vault / "secret"
    named = {setting: str(secret)}
    expected = f"{setting}: cannot read {secret} (No such file or directory)"
    assert nobody.refused(2, "bad-setting", "init", **named).startswith(expected)
    assert not nobody.data_dir.exists(), "it made something"
    secret.write_text("s" * 32)
    secret.chmod(0o644)
    assert "chmod 600" in nobody.refused(2, "bad-setting", "init", **named)
    secret.chmod(0o600)
    assert len(nobody.ask("init", **named)["made"]) == 2
    assert secret.read_text() == "s" * 32


def test_init_for_development_makes_every_secret_where_it_can(
    nobody: Operator, tmp_path: Path
) -> None:
    named = {"PORTAL_SESSION_KEY_FILE": str(tmp_path / "vault" / "session-key")}
    message = nobody.refused(2, "bad-setting", "init", "--dev", **named)
    assert message.startswith(f"PORTAL_SESSION_KEY_FILE: cannot create {tmp_path / 'vault'}")
    (tmp_path / "vault").mkdir()
    assert named["PORTAL_SESSION_KEY_FILE"] in nobody.ask("init", "--dev", **named)["made"]


def test_init_checks_the_secrets_that_are_there(operator: Operator) -> None:
    (operator.data_dir / "secrets" / "session-key").chmod(0o644)
    assert "PORTAL_SESSION_KEY_FILE" in operator.refused(2, "bad-setting", "init")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("license", "nonsense"),
        ("license", "issue"),
        ("license", "show"),
        ("license", "show", "a", "b"),
        ("account", "create", "--name", "x"),
        ("account", "create", "--nam", "x", "--nonsense"),
        ("entitlement", "create", "--mode", "neither"),
        ("enrollment-code", "create", "--deployment", "x", "--uses", "0"),
        ("serve", "--port", "99999"),
        ("staff", "create", "--email", "e", "--role", "r", "--password-file", "/nowhere"),
    ],
)
def test_a_call_that_makes_no_sense(nobody: Operator, arguments: tuple[str, ...]) -> None:
    nobody.refused(2, "usage", *arguments)


def test_help_is_no_error(nobody: Operator) -> None:
    for arguments in (("--help",), ("license", "--help"), ("license", "issue", "-h")):
        result = nobody.run(*arguments)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORTAL_ORIGIN", "https://licenses.example.com/"),
        ("PORTAL_ORIGIN", "https://Licenses.example.com"),
        ("PORTAL_ORIGIN", "https://licenses.example.com:443"),
        ("PORTAL_ORIGIN", "http://licenses.example.com"),
        ("PORTAL_ORIGIN", "licenses.example.com"),
        ("PORTAL_ORIGIN", "https://licenses.example.com:99999"),
        ("PORTAL_ORIGIN", "https://[:::::]"),
        ("PORTAL_FORMER_ORIGINS", "https://a.example,b.example"),
        ("PORTAL_DATABASE_URL", "mysql://localhost/portal"),
        ("PORTAL_DATABASE_URL", "nonsense"),
        ("PORTAL_DATABASE_URL", "postgresql+nonsense://localhost/portal"),
        ("PORTAL_DATABASE_URL", "postgresql://localhost:many/portal"),
        ("PORTAL_DATABASE_URL", "postgresql://localhost:99999/portal"),
        ("PORTAL_SURFACES", "public,nonsense"),
        ("PORTAL_SURFACES", ","),
        ("PORTAL_TRUSTED_PROXIES", "-1"),
        ("PORTAL_TRUSTED_PROXIES", "many"),
        ("PORTAL_TRUSTED_PROXIES", "\u00b2"),
        ("PORTAL_SMTP_URL", "mail.example.com"),
        ("PORTAL_SMTP_URL", "smtps://mail.example.com:99999"),
        ("PORTAL_SMTP_URL", "smtps://"),
        ("PORTAL_SMTP_URL", "smtps://desk:secret@mail.example.com"),
        ("PORTAL_MAIL_FROM", "the desk"),
        ("PORTAL_MAIL_FROM", "desk@example.com\r\nBcc: eve@example.com"),
        ("PORTAL_LOG_LEVEL", "loud"),
        ("PORT", "0"),
        ("PORT", "http"),
        ("PORT", "\u00b2"),
    ],
)
def test_a_wrong_setting_names_itself(nobody: Operator, name: str, value: str) -> None:
    assert name in nobody.refused(2, "bad-setting", "init", **{name: value})
    doctor = nobody.run("doctor", "--json", **{name: value})
    assert doctor.exit_code == 7
    (check,) = one_object(doctor)["checks"]
    assert (check["name"], check["result"]) == ("settings", "FAILED")
    assert name in check["detail"]
    assert not nobody.data_dir.exists()


def test_development_is_for_loopback_alone(nobody: Operator) -> None:
    message = nobody.refused(
        2, "bad-setting", "init", PORTAL_DEV="1", PORTAL_ORIGIN="https://a.example"
    )
    assert "PORTAL_DEV" in message


@pytest.mark.parametrize("setting", SECRETS)
@pytest.mark.parametrize("spoiled", ["missing", "mode", "short"])
def test_a_secret_that_cannot_be_used_names_itself(
    operator: Operator, setting: str, spoiled: str
) -> None:
    path = operator.data_dir / "secrets" / SECRETS[setting]
    if spoiled == "missing":
        path.unlink()
    elif spoiled == "mode":
        path.chmod(0o640)
    else:
        path.write_text("secret")
    expected = {
        "missing": f"{setting}: cannot read {path} (No such file or directory); "
        "`portal init` makes it",
        "mode": f"{setting}: others can read {path}; chmod 600 it",
        "short": f"{setting}: {path} is shorter than 32 bytes",
    }[spoiled]
    doctor = operator.run("doctor", "--json")
    assert doctor.exit_code == 7
    assert one_object(doctor)["checks"] == [
        {"result": "FAILED", "name": "settings", "detail": expected}
    ]
    assert operator.refused(2, "bad-setting", "serve") == expected
    assert operator.run("serve").stderr == f"portal: {expected}\n"
    if setting != "PORTAL_SESSION_KEY_FILE":
        assert operator.refused(2, "bad-setting", "worker", "--once") == expected
        assert operator.refused(2, "bad-setting", "keys", "list") == expected


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (None, 0, "cannot read {} (No such file or directory); bring the file you named"),
        (b"secret", 0o640, "others can read {}; chmod 600 it"),
        (b" \n", 0o600, "{} is empty"),
        (b"\xff\xfe", 0o600, "{} is not UTF-8 text"),
    ],
)
def test_a_mail_password_that_cannot_be_used_names_itself(
    operator: Operator, tmp_path: Path, content: bytes | None, mode: int, complaint: str
) -> None:
    path = tmp_path / "smtp-password"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    named = {
        "PORTAL_SMTP_URL": "smtps://desk@mail.example.com",
        "PORTAL_SMTP_PASSWORD_FILE": str(path),
    }
    expected = f"PORTAL_SMTP_PASSWORD_FILE: {complaint.format(path)}"
    assert operator.refused(2, "bad-setting", "worker", "--once", **named) == expected
    assert operator.run("worker", **named).stderr == f"portal: {expected}\n"
    operator.ask("keys", "list", **named)


def test_an_empty_variable_is_not_set() -> None:
    settings = load_settings({"PORTAL_SMTP_PASSWORD_FILE": "", "PORTAL_SMTP_URL": ""})
    assert (settings.smtp_password_file, settings.smtp_url) == (None, None)
    assert settings.smtp_password() is None


def key_file(operator: Operator, role: str) -> Path:
    """Return the file of the one key of a role."""
    (path,) = (operator.data_dir / "keys").glob(f"{role}-*.pem")
    return path


@pytest.mark.asvs("13.3.1")
@pytest.mark.parametrize("spoiled", ["missing", "mode", "another", "passphrase", "corrupt"])
def test_a_signing_key_that_cannot_be_used_says_why(operator: Operator, spoiled: str) -> None:
    path = key_file(operator, "license")
    said = None
    entitlement = make_approved(operator)
    if spoiled == "missing":
        path.unlink()
        why = f"cannot open {path}: No such file or directory"
    elif spoiled == "mode":
        path.chmod(0o644)
        why = f"{path} has mode 0644; chmod 600 it"
    elif spoiled == "another":
        path.write_bytes(key_file(operator, "lease").read_bytes())
        why = f"file:{path.name} holds key"
    elif spoiled == "passphrase":
        secret = operator.data_dir / "secrets" / "key-passphrase"
        secret.write_text("another passphrase, long enough to be one\n")
        why = f"{path} does not open with the key passphrase"
        # The command's first need is another key, which does not open either.
        said = why.replace(str(path), str(key_file(operator, "seal")))
    else:
        path.write_bytes(path.read_bytes()[:-40])
        why = f"{path} does not open with the key passphrase"
    doctor = operator.run("doctor", "--json")
    assert doctor.exit_code == 7
    (check,) = [each for each in one_object(doctor)["checks"] if each["name"] == "license key"]
    assert check["result"] == "FAILED"
    assert check["detail"].startswith(why)
    message = operator.refused(
        7, "signer-unavailable", "license", "issue", "--entitlement", entitlement
    )
    assert message.startswith(said or why)
    assert "PRIVATE" not in doctor.output


def make_approved(operator: Operator, **terms: str) -> str:
    """Make an approved entitlement; return its id."""
    staff = operator.ask("staff", "create", "--email", "ann@vendor.test", "--role", "approver")
    account = operator.ask(
        "account", "create", "--name", "NewCo", "--owner-email", "jo@newco.example"
    )
    deployment = operator.ask(
        "deployment", "create", "--account", account["account_id"], "--name", "Production"
    )
    options = [part for name, value in terms.items() for part in (f"--{name}", value)]
    made = operator.ask(
        "entitlement",
        "create",
        *("--deployment", deployment["deployment_id"], "--sku", "eval-72h"),
        *("--reason", "a test", "--by", staff["staff_id"]),
        *options,
    )
    operator.ask("entitlement", "approve", made["entitlement_id"], "--by", staff["staff_id"])
    return str(made["entitlement_id"])


def test_an_offline_license_holds_what_was_approved(operator: Operator, tmp_path: Path) -> None:
    entitlement = make_approved(
        operator, term="48h", limit="tokens_total=5000", fingerprint="fp_0123456789"
    )
    issued = operator.ask("license", "issue", "--entitlement", entitlement)
    again = operator.ask("license", "issue", "--entitlement", entitlement)
    assert again == issued, "one entitlement, two licenses"
    out = tmp_path / "license.json"
    operator.ask("license", "export", issued["license_id"], "--out", out)
    operator.ask("keys", "keyset", "--out", tmp_path / "keyset.json")
    at = operator.opened[-1].transactions.ports.clock.now()
    keyset = verify_keyset((tmp_path / "keyset.json").read_bytes(), int(at.timestamp())).document
    license_ = verify_license(
        out.read_bytes(),
        KeysetTrust(keyset),
        int(at.timestamp()),
        fingerprint="fp_0123456789",
    ).document
    assert issued["sha256"] == sha256_hex(out.read_bytes())
    assert license_.expires_at - license_.not_before_at == 48 * 3600
    assert license_.budget is not None
    assert license_.budget.tokens_total == 5000
    assert license_.binding.fingerprints == ("fp_0123456789",)


def test_a_document_may_go_to_standard_output(operator: Operator) -> None:
    issued = operator.ask("license", "issue", "--entitlement", make_approved(operator))
    result = operator.run("license", "export", issued["license_id"], "--out", "-")
    assert result.exit_code == 0
    assert sha256_hex(result.stdout_bytes) == issued["sha256"]
    for arguments in (("keys", "keyset"), ("bundle", "export")):
        assert b'"payload"' in operator.run(*arguments, "--out", "-").stdout_bytes


def test_a_file_that_cannot_be_written_is_named(operator: Operator, tmp_path: Path) -> None:
    message = operator.refused(1, "io", "keys", "keyset", "--out", tmp_path / "no" / "keyset.json")
    assert str(tmp_path / "no" / "keyset.json") in message


def test_what_the_rules_refuse(operator: Operator) -> None:
    entitlement = make_approved(operator)
    staff = ("--by", "ann@vendor.test")
    operator.refused(4, "not-found", "license", "show", "lic_0")
    operator.refused(4, "not-found", "license", "issue", "--entitlement", "ent_0")
    operator.refused(4, "not-found", "entitlement", "approve", "ent_0", *staff)
    operator.refused(4, "not-found", "entitlement", "approve", entitlement, "--by", "nobody")
    operator.refused(4, "not-found", "deployment", "create", "--account", "cus_0", "--name", "x")
    operator.refused(
        4, "conflict", "staff", "create", "--email", "ann@vendor.test", "--role", "keys"
    )
    operator.refused(2, "invalid", "staff", "create", "--email", "ann", "--role", "keys")
    operator.refused(2, "invalid", "staff", "create", "--email", "b@vendor.test", "--role", "king")
    operator.ask("staff", "create", "--email", "sue@vendor.test", "--role", "support")
    operator.refused(
        4, "forbidden", "entitlement", "approve", entitlement, "--by", "sue@vendor.test"
    )


@pytest.mark.asvs("2.3.5")
def test_a_contract_needs_two_people(operator: Operator) -> None:
    make_approved(operator)
    bea = operator.ask("staff", "create", "--email", "bea@vendor.test", "--role", "approver")
    account = operator.ask("account", "create", "--name", "B", "--owner-email", "b@big.example")
    deployment = operator.ask(
        "deployment", "create", "--account", account["account_id"], "--name", "Production"
    )
    made = operator.ask(
        "entitlement",
        "create",
        *("--deployment", deployment["deployment_id"], "--sku", "enterprise-annual"),
        *("--feature", "routing", "--reason", "contract 7", "--by", "ann@vendor.test"),
    )
    approve = ("entitlement", "approve", made["entitlement_id"], "--by")
    operator.refused(4, "forbidden", *approve, "ann@vendor.test")
    assert operator.ask(*approve, bea["staff_id"])["status"] == "approved"


@pytest.mark.parametrize(
    ("name", "value"), [("term", "a month"), ("term", "0d"), ("limit", "x"), ("limit", "max_seats")]
)
def test_terms_that_make_no_sense(operator: Operator, name: str, value: str) -> None:
    make_approved(operator)
    message = operator.refused(
        2,
        "invalid",
        "entitlement",
        "create",
        *("--deployment", "dep_0", "--sku", "eval-72h", "--reason", "r"),
        *("--by", "ann@vendor.test", f"--{name}", value),
    )
    assert value in message


@pytest.mark.asvs("6.2.1")
def test_a_weak_password_is_refused(operator: Operator, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("short\n")
    arguments = ("staff", "create", "--email", "b@vendor.test", "--role", "keys")
    operator.refused(2, "invalid", *arguments, "--password-file", secret)
    secret.write_text("nobody expects this horse\n")
    operator.ask(*arguments, "--password-file", secret)


@pytest.mark.asvs("11.1.2")
def test_the_listed_keys_are_the_published_ones(operator: Operator, tmp_path: Path) -> None:
    listed = operator.ask("keys", "list")["keys"]
    assert [key["role"] for key in listed] == ["root", "license", "lease", "revocation"]
    assert {key["status"] for key in listed} == {"active"}
    operator.ask("keys", "keyset", "--out", tmp_path / "keyset.json")
    at = int(operator.opened[-1].transactions.ports.clock.now().timestamp())
    keyset = verify_keyset((tmp_path / "keyset.json").read_bytes(), at).document
    published = [*keyset.roots_by_keyid, *keyset.by_keyid]
    assert [key["keyid"] for key in listed] == published
    for key in listed:
        assert (operator.data_dir / "keys" / key["uri"].removeprefix("file:")).is_file()
    lines = operator.run("keys", "list").stdout.splitlines()
    assert [line.split()[2] for line in lines] == published


def test_a_key_is_rotated_retired_and_compromised_by_command(
    operator: Operator, tmp_path: Path
) -> None:
    entitlement = make_approved(operator)
    issued = operator.ask("license", "issue", "--entitlement", entitlement)
    people = []
    for name in ("kim", "kay"):
        people.append(f"{name}@vendor.test")
        operator.ask("staff", "create", "--email", people[-1], "--role", "keys")
    kim, kay = people

    def change(*arguments: str) -> dict[str, Any]:
        proposed = operator.ask("keys", *arguments, "--by", kim)
        assert set(proposed) == {"act_id", "status"}
        assert proposed["status"] == "pending"
        act_id = proposed["act_id"]
        operator.refused(4, "conflict", "keys", "run", act_id)
        operator.refused(4, "forbidden", "act", "approve", act_id, "--by", kim)
        assert operator.ask("act", "approve", act_id, "--by", kay)["status"] == "approved"
        done = operator.ask("keys", "run", act_id)
        assert operator.ask("keys", "run", act_id) == done
        return done

    rotated = change("rotate", "--role", "license", "--activate-in", "0s")
    assert set(rotated) == {"keyset_version", "keyid"}
    lacks = operator.ask("keys", "readiness")
    assert set(lacks) == {"keyset_version", "known", "ready", "deployments"}
    assert (lacks["keyset_version"], lacks["known"], lacks["ready"]) == (2, 1, 0)
    assert [each["name"] for each in lacks["deployments"]] == ["Production"]
    old = issued["key_id"]
    operator.refused(4, "conflict", "keys", "retire", old, "--by", kim)
    operator.refused(2, "invalid", "keys", "retire", old, "--anyway", "--by", kim)
    retired = change("retire", old, "--anyway", "--reason", "the site is gone")
    assert retired == {"keyset_version": 3, "keyid": old}
    ended = change("compromise", old, "--reason", "a laptop was lost")
    assert (ended["keyset_version"], ended["keyid"]) == (4, old)
    (again,) = ended["licenses"]
    assert again["replaces"] == issued["license_id"]
    keyset = tmp_path / "keyset.json"
    license_file = tmp_path / "license.json"
    operator.ask("keys", "keyset", "--out", keyset)
    operator.ask("license", "export", again["license_id"], "--out", license_file)
    at = unix(operator.opened[-1].transactions.ports.clock.now())
    trust = KeysetTrust(verify_keyset(keyset.read_bytes(), at).document)
    assert verify_license(license_file.read_bytes(), trust, at).keyids == (rotated["keyid"],)


def test_a_key_of_a_keeper_is_added_by_its_public_half(operator: Operator, tmp_path: Path) -> None:
    public = tmp_path / "license-2027.pem"
    public.write_text(
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
        "-----END PUBLIC KEY-----\n"
    )
    arguments = ("--uri", "vault:transit/license-2027/1", "--public-key", public)
    added = operator.ask("keys", "add", "--role", "license", *arguments)
    assert set(added) == {"keyid", "role", "uri"}
    operator.refused(4, "conflict", "keys", "add", "--role", "license", *arguments)
    uri = "vault:transit/license-2028/1"
    said = operator.refused(
        7, "signer-unavailable", "keys", "add", "--role", "license", "--uri", uri
    )
    assert "no signer for vault: keys" in said


def test_db_check_before_and_after_upgrade(nobody: Operator) -> None:
    nobody.data_dir.mkdir()
    assert "portal db upgrade" in nobody.refused(4, "conflict", "db", "check")
    assert nobody.ask("db", "upgrade") == {"schema": migrate.head()}
    assert nobody.ask("db", "check") == {"schema": migrate.head()}
    assert nobody.ask("db", "upgrade") == {"schema": migrate.head()}


def test_an_empty_database_is_said_to_be_empty(operator: Operator, postgres: Cluster) -> None:
    arguments = ("account", "create", "--name", "x", "--owner-email", "a@b.example")
    with fresh_database(postgres, "template0") as url:
        message = operator.refused(1, "database", *arguments, PORTAL_DATABASE_URL=url)
        assert "portal init" in message
        doctor = operator.run("doctor", "--json", PORTAL_DATABASE_URL=url)
        found = {check["name"]: check["detail"] for check in one_object(doctor)["checks"]}
        assert "portal db upgrade" in found["schema"]
        for wiring in operator.opened:
            wiring.database.dispose()
    operator.refused(1, "database", *arguments, PORTAL_DATABASE_URL=url)
    doctor = operator.run("doctor", "--json", PORTAL_DATABASE_URL=url)
    found = {check["name"]: check["detail"] for check in one_object(doctor)["checks"]}
    assert "PORTAL_DATABASE_URL" in found["database"]
    (operator.data_dir / "portal.sqlite3").unlink()
    operator.refused(1, "database", *arguments)


def test_a_keyset_that_does_not_verify_is_no_crash(operator: Operator) -> None:
    entitlement = make_approved(operator)
    with operator.opened[-1].database.writing() as session:
        session.query(KeysetVersion).update({"envelope": b"{}"})
    operator.refused(7, "malformed-envelope", "keys", "list")
    operator.refused(7, "malformed-envelope", "license", "issue", "--entitlement", entitlement)
    doctor = operator.run("doctor", "--json")
    unwell = {each["name"] for each in one_object(doctor)["checks"] if each["result"] != "ok"}
    assert (doctor.exit_code, "keyset" in unwell) == (7, True)


def test_a_portal_without_a_worker_is_not_well(operator: Operator) -> None:
    doctor = operator.run("doctor", "--json")
    unwell = [each["name"] for each in one_object(doctor)["checks"] if each["result"] != "ok"]
    assert (doctor.exit_code, unwell) == (7, ["worker"])


def unwell(operator: Operator, *arguments: str, **changed: str) -> dict[str, str]:
    """Return the checks of the doctor that fail, with their details."""
    doctor = operator.run("doctor", "--json", *arguments, **changed)
    checks = one_object(doctor)["checks"]
    found = {each["name"]: each["detail"] for each in checks if each["result"] != "ok"}
    assert doctor.exit_code == (7 if found else 0)
    return found


def test_the_doctor_expects_of_each_process_what_it_may_hold(
    operator: Operator, tmp_path: Path
) -> None:
    """The web's user has the lease key alone; only the worker can read the mail password."""
    with operator.opened[-1].database.writing() as session:
        beat(session, WORKER_BEAT, operator.opened[-1].transactions.ports.clock.now())
    mail = {
        "PORTAL_SMTP_URL": "smtps://desk@mail.example.com",
        "PORTAL_SMTP_PASSWORD_FILE": str(tmp_path / "smtp-password"),
    }
    for role in ("license", "revocation", "root"):
        key_file(operator, role).rename(tmp_path / f"{role}.pem")
    assert unwell(operator, "--role", "web", **mail) == {}
    assert "PORTAL_SMTP_PASSWORD_FILE" in unwell(operator, **mail)["settings"]
    assert "PORTAL_SMTP_PASSWORD_FILE" in unwell(operator, "--role", "worker", **mail)["settings"]
    (tmp_path / "smtp-password").touch(mode=0o600)
    (tmp_path / "smtp-password").write_text("horse\n")
    (operator.data_dir / "secrets" / "session-key").unlink()
    for process in ("worker", "command"):
        assert set(unwell(operator, "--role", process, **mail)) == {"license key", "revocation key"}
    for arguments in ((), ("--role", "web")):
        assert "PORTAL_SESSION_KEY_FILE" in unwell(operator, *arguments, **mail)["settings"]
    operator.refused(2, "usage", "doctor", "--role", "nobody")


def test_the_doctor_checks_every_license_and_the_operator_reviews(operator: Operator) -> None:
    """What is sealed checks out; a row that was changed since is named, and fails the doctor."""
    entitlement = make_approved(operator)
    operator.ask("license", "issue", "--entitlement", entitlement)
    assert set(unwell(operator, "--licenses")) == {"worker"}
    assert operator.ask("custody", "adopt") == {"entitlements": []}
    assert operator.ask("custody", "review") == {"refused": []}
    with operator.opened[-1].database.writing() as session:
        session.execute(text("UPDATE entitlements SET budget_id = NULL"))
    found = unwell(operator, "--licenses")
    assert "differs from what was sealed" in found["licenses"]
    arguments = ("--entitlement", entitlement, "--reason", "x", "--by", "ann@vendor.test")
    operator.refused(4, "conflict", "custody", "adopt", *arguments)


def test_a_lost_seal_key_is_not_silently_replaced(operator: Operator) -> None:
    make_approved(operator)
    key_file(operator, "seal").unlink()
    assert "backup" in operator.refused(4, "conflict", "keys", "init")
    operator.ask("keys", "init", "--new-seal-key")
    assert key_file(operator, "seal").is_file()


@pytest.mark.parametrize(
    ("value", "origin", "expected"),
    [
        ("", "https://licenses.example.com", "command"),
        ("", "http://127.0.0.1:8000", "session"),
        ("session", "https://licenses.example.com", "session"),
        ("command", "http://127.0.0.1:8000", "command"),
    ],
)
def test_what_counts_as_an_approval(value: str, origin: str, expected: str) -> None:
    settings = load_settings({"PORTAL_APPROVALS": value, "PORTAL_ORIGIN": origin})
    assert settings.approvals == expected


@pytest.mark.parametrize("value", ["passkey", "nobody"])
def test_an_approval_that_cannot_be_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="PORTAL_APPROVALS"):
        load_settings({"PORTAL_APPROVALS": value})


def test_serve_without_init_says_what_is_missing(tmp_path: Path) -> None:
    shell = make_shell(tmp_path, f"sqlite:///{tmp_path / 'portal.sqlite3'}")
    ended = shell.run("portal", "serve", "--json")
    assert (ended.status, ended.facts["error"]["code"]) == (2, "bad-setting")
    assert "portal init" in ended.stderr


@pytest.mark.asvs("13.3.1")
def test_no_secret_is_printed(operator: Operator) -> None:
    secrets = [
        (operator.data_dir / "secrets" / name).read_text().strip() for name in SECRETS.values()
    ]
    printed = [
        operator.run(*arguments).output
        for arguments in (("init",), ("keys", "list"), ("doctor",), ("staff", "list"))
    ]
    for secret in [*secrets, "PRIVATE KEY"]:
        assert not any(secret in text for text in printed)


def test_an_instance_that_never_was(operator: Operator) -> None:
    for act in (("show", "ins_0"), ("retire", "ins_0", "--reason", "gone")):
        operator.refused(4, "not-found", "instance", *act)


def test_the_audit_trail_holds_after_the_worker_sealed_it(operator: Operator) -> None:
    make_approved(operator)
    make_shell(
        operator.data_dir.parent, f"sqlite:///{operator.data_dir / 'portal.sqlite3'}"
    ).portal("worker", "--once")
    assert operator.ask("audit", "check") == {"chain": "holds"}


@pytest.mark.asvs("16.4.3")
def test_the_audit_trail_is_held_against_a_bundle_somebody_kept(
    operator: Operator, tmp_path: Path
) -> None:
    """Every seal was computed again, and the stored bundles are gone."""
    make_approved(operator)
    kept = tmp_path / "kept.json"
    transactions = operator.opened[-1].transactions
    seal_committed(transactions)
    publish_bundle(transactions, COMMAND)
    operator.ask("bundle", "export", "--out", kept)
    check = ("audit", "check", "--bundle", kept)
    assert operator.ask(*check) == {"chain": "holds"}
    with transactions.writing(COMMAND) as context:
        for name in context.session.scalars(
            text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ).all():
            context.session.execute(text(f'DROP TRIGGER "{name}"'))
        for table in ("bundles", "sealed_rows", "audit_seals"):
            context.session.execute(text(f"DELETE FROM {table}"))
        context.session.execute(text("UPDATE audit_rows SET reason = 'another'"))
    seal_committed(transactions)
    assert operator.ask("audit", "check") == {"chain": "holds"}
    assert "bundle" in operator.refused(4, "conflict", *check)
    kept.write_text("{}")
    operator.refused(7, "malformed-envelope", *check)
    kept.unlink()
    operator.refused(2, "usage", *check)
