"""`router-license` on real files: every exit code, what it prints, and what it never prints."""

import importlib
import io
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from licensing.encoding import b64encode
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.license import Binding, License, RevocationTerms
from licensing.names import CODES, ROUTER_CODES, next_step
from router.commands.cli import _parser, main
from router.commands.options import KEYSET_VARIABLE
from tests.router.papers import (
    AT,
    DAY_S,
    EXPIRES_AT,
    ISSUED_AT,
    Vendor,
    entry,
    identifier,
    sign,
    spki_pem,
)
from tests.spread import spread

BIN = Path(sys.executable).parent
FINGERPRINT = "fp_0123456789"
SAFE = {
    "status",
    "reason",
    "license_id",
    "customer_id",
    "sku",
    "key_id",
    "issuer",
    "issued_at",
    "not_before",
    "expires_at",
    "features",
    "limits",
    "budget_tokens",
    "mode",
    "deployment_id",
    "revision",
    "payload_sha256",
}
"""The facts of the safe summary; the payload's hash names the file on a ticket."""


@dataclass(frozen=True)
class Ended:
    """How the command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def facts(self) -> dict[str, Any]:
        """The one object on standard output."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Desk:
    """A directory with documents, and the command run over them in this process."""

    directory: Path
    vendor: Vendor
    captured: pytest.CaptureFixture[str]

    def put(self, name: str, data: bytes) -> str:
        """Write a file; return its path."""
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def run(self, *arguments: str) -> Ended:
        """Run the command."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = self.captured.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    def verify(self, data: bytes, *arguments: str, at: int | str = AT) -> Ended:
        """Verify a license under the vendor's keyset."""
        keyset = self.put("keyset.json", self.vendor.keyset())
        file = self.put("license.json", data)
        return self.run(
            "verify", file, "--keyset", keyset, "--as-of", str(at), "--json", *arguments
        )


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.delenv(KEYSET_VARIABLE, raising=False)
    return Desk(tmp_path, Vendor(), capsys)


def invalid(ended: Ended, status: int, code: str, subject: str = "license") -> dict[str, Any]:
    """Require a refusal that says what is wrong and what to do, on both channels."""
    facts = ended.facts
    assert (ended.status, facts["result"], facts["code"]) == (status, "invalid", code)
    assert CODES[code].exit == status
    assert facts["next_step"] == next_step(code, subject)
    assert facts["next_step"] in ended.stderr
    return facts


def test_a_valid_license(desk: Desk) -> None:
    ended = desk.verify(desk.vendor.license())
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.facts["result"] == "valid"
    assert ended.facts["key_id"] == desk.vendor.signers["license"].keyid


@pytest.mark.parametrize("text", ["", "{}", "[]", "\ufeff{}", '{"payload":"a"}', "x" * 20_000])
def test_what_is_no_envelope(desk: Desk, text: str) -> None:
    invalid(desk.verify(text.encode()), 3, "malformed-envelope")


def test_another_kind_of_document(desk: Desk) -> None:
    invalid(desk.verify(desk.vendor.bundle()), 3, "wrong-type")


def test_content_that_was_changed(desk: Desk) -> None:
    genuine = Envelope.parse(desk.vendor.license())
    forged = genuine.payload.replace(b'"max_instances":3', b'"max_instances":9')
    assert forged != genuine.payload
    changed = Envelope(forged, genuine.payload_type, genuine.signatures).to_bytes()
    facts = invalid(desk.verify(changed), 3, "bad-signature")
    assert {"check": "time", "result": "ok"} in facts["also"]


def test_signed_content_that_breaks_the_format(desk: Desk) -> None:
    genuine = Envelope.parse(desk.vendor.license())
    spaced = sign(genuine.payload + b" ", genuine.payload_type, desk.vendor.signers["license"])
    invalid(desk.verify(spaced.to_bytes()), 3, "malformed-payload")


def test_a_compromised_key(desk: Desk) -> None:
    desk.vendor.status = "compromised"
    invalid(desk.verify(desk.vendor.license()), 3, "key-not-valid")


def test_a_retired_key_still_counts(desk: Desk) -> None:
    desk.vendor.status = "retired"
    assert desk.verify(desk.vendor.license()).status == 0


def test_a_key_of_the_wrong_role(desk: Desk) -> None:
    genuine = Envelope.parse(desk.vendor.license())
    signer = desk.vendor.signers["lease"]
    invalid(
        desk.verify(sign(genuine.payload, genuine.payload_type, signer).to_bytes()),
        7,
        "untrusted-key",
    )


def test_a_stranger(desk: Desk) -> None:
    invalid(desk.verify(Vendor("a stranger").license()), 7, "untrusted-key")


def test_a_keyset_that_is_too_old(desk: Desk) -> None:
    invalid(desk.verify(desk.vendor.license(min_keyset_version=2)), 7, "keyset-too-old")


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"iss": "elsewhere.example"}, "wrong-issuer"), ({"product": "other"}, "wrong-product")],
)
def test_another_vendor_or_product(desk: Desk, changed: dict[str, str], code: str) -> None:
    invalid(desk.verify(desk.vendor.license(**changed)), 5, code)


def test_the_second_of_expiry_and_the_one_before(desk: Desk) -> None:
    data = desk.vendor.license()
    assert desk.verify(data, at=EXPIRES_AT - 1).status == 0
    invalid(desk.verify(data, at=EXPIRES_AT), 5, "expired")


def test_the_second_it_begins_and_the_one_before(desk: Desk) -> None:
    data = desk.vendor.license(not_before_at=AT)
    assert desk.verify(data, at=AT).status == 0
    invalid(desk.verify(data, at=AT - 1), 5, "not-yet-valid")


def test_a_clock_that_is_a_little_behind_is_no_harm(desk: Desk) -> None:
    data = desk.vendor.license(issued_at=AT, not_before_at=AT - 300)
    assert desk.verify(data, at=AT - 300).status == 0
    invalid(desk.verify(data, at=AT - 301), 5, "not-yet-valid")


def test_binding(desk: Desk) -> None:
    data = desk.vendor.license(binding=Binding(fingerprints=(FINGERPRINT,)))
    assert desk.verify(data, "--fingerprint", FINGERPRINT).status == 0
    for other in ("fp_9876543210", FINGERPRINT.upper(), ""):
        invalid(desk.verify(data, "--fingerprint", other), 5, "wrong-instance")


def test_a_bound_license_without_a_fingerprint_says_what_was_not_checked(desk: Desk) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    data = desk.vendor.license(binding=Binding(fingerprints=(FINGERPRINT,)))
    ended = desk.run(
        "verify", desk.put("license.json", data), "--keyset", keyset, "--as-of", str(AT)
    )
    assert ended.status == 0
    assert "--fingerprint" in ended.stderr


@pytest.mark.parametrize("status", ["revoked", "suspended", "superseded"])
def test_what_the_bundle_says(desk: Desk, status: str) -> None:
    data = desk.vendor.license()
    bundle = desk.put("bundle.json", desk.vendor.bundle(entry(status)))
    invalid(desk.verify(data, "--bundle", bundle), 6, status)
    later = desk.put("bundle.json", desk.vendor.bundle(entry(status, AT + 1)))
    assert desk.verify(data, "--bundle", later).status == 0
    invalid(desk.verify(data, "--bundle", later, at=AT + 1), 6, status)


def test_a_bundle_that_is_needed(desk: Desk) -> None:
    terms = RevocationTerms(require_current_bundle=True, min_version=0)
    data = desk.vendor.license(revocation=terms)
    invalid(desk.verify(data), 7, "revocation-required")
    bundle = desk.put("bundle.json", desk.vendor.bundle())
    assert desk.verify(data, "--bundle", bundle).status == 0
    flag = "--require-current-bundle"
    invalid(desk.verify(desk.vendor.license(), flag), 7, "revocation-required")


@pytest.mark.parametrize("spoiled", ["expired", "foreign", "older", "nonsense"])
def test_a_bundle_that_cannot_be_used(desk: Desk, spoiled: str) -> None:
    bundle = {
        "expired": desk.vendor.bundle(issued_at=1, version=1, expires_at=AT),
        "foreign": Vendor("a stranger").bundle(),
        "older": desk.vendor.bundle(),
        "nonsense": b"<html>",
    }[spoiled]
    floor = ISSUED_AT + 1 if spoiled == "older" else 0
    terms = RevocationTerms(require_current_bundle=False, min_version=floor)
    data = desk.vendor.license(revocation=terms)
    ended = desk.verify(data, "--bundle", desk.put("bundle.json", bundle))
    invalid(ended, 7, "revocation-unusable")


@pytest.mark.parametrize(
    ("written", "status"),
    [
        (datetime.fromtimestamp(EXPIRES_AT - 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), 0),
        (datetime.fromtimestamp(EXPIRES_AT, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), 5),
        (datetime.fromtimestamp(EXPIRES_AT + 7199, UTC).strftime("%Y-%m-%dT%H:%M:%S+02:00"), 0),
        (datetime.fromtimestamp(EXPIRES_AT + 7200, UTC).strftime("%Y-%m-%dT%H:%M:%S+02:00"), 5),
        (str(EXPIRES_AT), 5),
        (str(EXPIRES_AT - 1), 0),
    ],
)
def test_an_instant_is_rfc_3339_or_unix_time(desk: Desk, written: str, status: int) -> None:
    assert desk.verify(desk.vendor.license(), at=written).status == status


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-23T18:00:00",
        "yesterday",
        "-1",
        "1.5",
        "1e9",
        "",
        "\u0661",
    ],
)
def test_what_is_no_instant_is_a_usage_error(desk: Desk, written: str) -> None:
    ended = desk.run("verify", "-", f"--as-of={written}", "--json")
    assert ended.status == 2
    assert ended.facts["error"]["code"] == "usage"


def test_an_approved_key_in_place_of_a_keyset(desk: Desk) -> None:
    file = desk.put("license.json", desk.vendor.license(min_keyset_version=9))
    pem = desk.put("key.pem", spki_pem(desk.vendor.signers["license"].public_key))
    arguments = ("verify", file, "--public-key", pem, "--as-of", str(AT), "--json")
    assert desk.run(*arguments).status == 0
    desk.put("key.pem", spki_pem(Vendor("a stranger").signers["license"].public_key))
    invalid(desk.run(*arguments), 7, "untrusted-key")
    desk.put("key.pem", b"-----BEGIN RSA PUBLIC KEY-----\n")
    ended = desk.run(*arguments)
    assert ended.status == 3
    assert "public key" in ended.facts["detail"]


def test_a_keyset_that_does_not_verify_is_named(desk: Desk) -> None:
    file = desk.put("license.json", desk.vendor.license())
    keyset = desk.put("keyset.json", desk.vendor.keyset() + b"}")
    ended = desk.run("verify", file, "--keyset", keyset, "--as-of", str(AT), "--json")
    assert ended.status == 3
    assert "keyset" in ended.facts["detail"]


def test_an_expired_keyset_warns_and_still_verifies(desk: Desk) -> None:
    file = desk.put("license.json", desk.vendor.license())
    keyset = desk.put("keyset.json", desk.vendor.keyset(expires_at=AT))
    ended = desk.run("verify", file, "--keyset", keyset, "--as-of", str(AT))
    assert ended.status == 0
    assert "keyset has expired" in ended.stderr


def test_the_keyset_may_be_named_by_the_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.put("license.json", desk.vendor.license())
    without = desk.run("verify", file, "--as-of", str(AT), "--json")
    assert (without.status, without.facts["error"]["code"]) == (2, "usage")
    assert KEYSET_VARIABLE in without.stderr
    monkeypatch.setenv(KEYSET_VARIABLE, desk.put("keyset.json", desk.vendor.keyset()))
    assert desk.run("verify", file, "--as-of", str(AT)).status == 0


@pytest.mark.parametrize("missing", ["license.json", "keyset.json"])
def test_a_missing_file_is_named(desk: Desk, missing: str) -> None:
    desk.put("license.json", desk.vendor.license())
    desk.put("keyset.json", desk.vendor.keyset())
    (desk.directory / missing).unlink()
    ended = desk.run(
        "verify",
        str(desk.directory / "license.json"),
        *("--keyset", str(desk.directory / "keyset.json"), "--json"),
    )
    assert (ended.status, ended.facts["error"]["code"]) == (1, "io")
    assert missing in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["verify"], ["nonsense"], ["verify", "a", "b"], ["bundle"], ["verify", "a", "--nonsense"]],
)
def test_a_call_that_makes_no_sense(desk: Desk, arguments: list[str]) -> None:
    plain = desk.run(*arguments)
    assert (plain.status, plain.stdout) == (2, "")
    assert "--help" in plain.stderr
    ended = desk.run(*arguments, "--json")
    assert (ended.status, ended.facts["error"]["code"]) == (2, "usage")


def test_each_flipped_bit_is_noticed(desk: Desk) -> None:
    genuine = desk.vendor.license()
    keyid = Envelope.parse(genuine).signatures[0].keyid
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    seen = {3: 0, 7: 0}
    for index in spread(range(len(genuine)), 5):
        flipped = bytearray(genuine)
        flipped[index] ^= 1 << index % 8
        file = desk.put("license.json", bytes(flipped))
        ended = desk.run("verify", file, "--keyset", keyset, "--as-of", str(AT))
        try:
            other_keyid = Envelope.parse(bytes(flipped)).signatures[0].keyid != keyid
        except LicensingError:
            other_keyid = False
        assert ended.status == (7 if other_keyid else 3), f"byte {index}"
        seen[ended.status] += 1
    assert seen[3] > len(genuine) / 6
    assert seen[7] > 3


def test_each_cut_file_is_malformed(desk: Desk) -> None:
    genuine = desk.vendor.license()
    for length in range(0, len(genuine), 37):
        invalid(desk.verify(genuine[:length]), 3, "malformed-envelope")


def test_inspect_shows_all_and_vouches_for_nothing(desk: Desk) -> None:
    file = desk.put("license.json", desk.vendor.license())
    facts = desk.run("inspect", file, "--json").facts
    assert facts["status"] == "UNVERIFIED"
    assert facts["payload"]["customer_name"] == "NewCo"
    plain = desk.run("inspect", file)
    assert "UNVERIFIED" in plain.stdout
    assert "UNVERIFIED" in plain.stderr
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    verified = desk.run("inspect", file, "--keyset", keyset, "--as-of", str(AT), "--json")
    assert verified.facts["status"] == "verified"
    expired = desk.run("inspect", file, "--keyset", keyset, "--as-of", str(EXPIRES_AT), "--json")
    assert expired.facts["status"] == "INVALID: expired"
    assert expired.status == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[" * 5000,
        b"[1]",
        b'{"expires_at":99999999999999999}',
        b'{"expires_at":-99999999999999999}',
        b'{"name":"a\\u001b[31mb\\r\\nc"}',
        b'{"name":"\\ud800"}',
    ],
)
def test_inspect_survives_whatever_anybody_wrote(desk: Desk, payload: bytes) -> None:
    envelope = sign(payload, License.PAYLOAD_TYPE, desk.vendor.signers["license"])
    file = desk.put("license.json", envelope.to_bytes())
    for arguments in ((), ("--json",)):
        ended = desk.run("inspect", file, *arguments)
        assert ended.status in (0, 3)
        assert "\x1b" not in ended.stdout + ended.stderr
        assert "UNVERIFIED" in ended.stdout or "malformed-payload" in ended.stdout


def test_inspect_shows_no_control_characters_of_a_payload_type(desk: Desk) -> None:
    text = b'{"payload":"e30=","payloadType":"\\u001b]0;a\\u0007","signatures":['
    signature = json.dumps({"keyid": "0" * 64, "sig": b64encode(bytes(64))}).encode()
    ended = desk.run("inspect", desk.put("license.json", text + signature + b"]}"))
    assert "\x1b" not in ended.stdout
    assert "\x07" not in ended.stdout


def test_summarize_shows_the_safe_facts_alone(desk: Desk) -> None:
    data = desk.vendor.license(binding=Binding(fingerprints=(FINGERPRINT,)))
    file = desk.put("license.json", data)
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    ended = desk.run("summarize", file, "--json")
    assert ended.facts["status"] == "UNVERIFIED"
    assert set(ended.facts) <= SAFE
    assert not {"NewCo", FINGERPRINT, "gold"} & set(ended.stdout.split('"'))
    plain = desk.run("summarize", file, "--keyset", keyset, "--as-of", str(AT))
    assert plain.status == 0
    for secret in ("NewCo", FINGERPRINT, "gold"):
        assert secret not in plain.stdout + ended.stdout
    valid = desk.run("summarize", file, "--keyset", keyset, "--as-of", str(AT), "--json")
    assert valid.facts["status"] == "valid"
    expired = desk.run("summarize", file, "--keyset", keyset, "--as-of", str(EXPIRES_AT), "--json")
    assert expired.facts["status"] == "expired"


def test_bundle_verify(desk: Desk) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    file = desk.put("bundle.json", desk.vendor.bundle(entry("revoked")))
    base = ("bundle", "verify", file, "--keyset", keyset, "--json", "--as-of")
    ended = desk.run(*base, str(AT))
    assert (ended.status, ended.facts["entries"], ended.facts["version"]) == (0, 1, ISSUED_AT)
    bundle = "revocation bundle"
    invalid(desk.run(*base, str(ISSUED_AT + 35 * DAY_S)), 5, "expired", bundle)
    invalid(desk.run(*base, str(AT), "--floor", str(ISSUED_AT + 1)), 6, "rolled-back", bundle)
    invalid(desk.run(*base, str(ISSUED_AT - 301)), 5, "not-yet-valid", bundle)
    desk.put("bundle.json", desk.vendor.license())
    invalid(desk.run(*base, str(AT)), 3, "wrong-type", bundle)


def test_keyset_verify(desk: Desk) -> None:
    file = desk.put("keyset.json", desk.vendor.keyset())
    base = ("keyset", "verify", file, "--json", "--as-of")
    ended = desk.run(*base, str(AT))
    assert (ended.status, ended.facts["expired"], ended.facts["version"]) == (0, False, 1)
    late = desk.run(*base, str(AT + 365 * DAY_S))
    assert (late.status, late.facts["expired"]) == (0, True)
    assert "expired" in late.stderr
    invalid(desk.run(*base, str(ISSUED_AT - 2 * DAY_S)), 5, "not-yet-valid", "keyset")
    genuine = Envelope.parse(desk.vendor.keyset())
    stranger = sign(
        genuine.payload, genuine.payload_type, Vendor("a stranger").signers["root"]
    ).to_bytes()
    desk.put("keyset.json", stranger)
    invalid(desk.run(*base, str(AT)), 7, "untrusted-key", "keyset")


def test_what_to_do_names_the_file_that_is_wrong(desk: Desk) -> None:
    half = desk.put("half.json", desk.vendor.license()[:-9])
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    license_ = desk.put("license.json", desk.vendor.license())
    code, asked = "malformed-envelope", ("--json", "--as-of", str(AT))
    for subject, words, arguments in (
        ("license", "license.json again", ("verify", half, "--keyset", keyset)),
        ("license", "license.json again", ("summarize", half)),
        ("keyset", "keyset.json again", ("verify", license_, "--keyset", half)),
        ("keyset", "keyset.json again", ("keyset", "verify", half)),
        ("revocation bundle", "bundle", ("bundle", "verify", half, "--keyset", keyset)),
        ("keyset", "keyset.json again", ("bundle", "verify", license_, "--keyset", half)),
        ("file", "the file again", ("inspect", half)),
    ):
        facts = invalid(desk.run(*arguments, *asked), 3, code, subject)
        assert words in facts["next_step"]
        assert ("license.json" in facts["next_step"]) == (subject == "license")


@pytest.mark.parametrize("code", [*CODES, *ROUTER_CODES])
def test_explain_knows_each_code(desk: Desk, code: str) -> None:
    ended = desk.run("explain", code, "--json")
    assert ended.status == 0
    assert ended.facts["code"] == code
    assert ended.facts["meaning"]
    assert ended.facts["next_step"]
    assert desk.run("explain", code).stdout.startswith("code:")


def test_explain_says_which_codes_there_are(desk: Desk) -> None:
    ended = desk.run("explain", "license-expird", "--json")
    assert (ended.status, ended.facts["error"]["code"]) == (2, "usage")
    assert "license-expired" in ended.stderr


def test_people_get_lines(desk: Desk) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    file = desk.put("license.json", desk.vendor.license())
    ended = desk.run("verify", file, "--keyset", keyset, "--as-of", str(AT))
    assert ended.stdout.splitlines()[0].split() == ["result:", "valid"]
    assert f"license_id:      {identifier('lic', 1)}" in ended.stdout
    refused = desk.run("verify", file, "--keyset", keyset, "--as-of", str(EXPIRES_AT))
    assert refused.stdout.splitlines()[:2] == [
        "result:          invalid",
        "code:            expired",
    ]


def run_installed(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
    """Run the installed command as a process of its own."""
    ended = subprocess.run(
        [BIN / "router-license", *arguments],
        check=False,
        input=stdin,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        timeout=60,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def test_standard_input_is_a_dash(desk: Desk) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    data = desk.vendor.license()
    base = ("verify", "-", "--keyset", keyset, "--as-of", str(AT), "--json")
    assert run_installed(*base, stdin=data).facts["result"] == "valid"
    invalid(run_installed(*base, stdin=data[:-1]), 3, "malformed-envelope")
    usage = run_installed("verify", "-", "--json", "--nonsense")
    assert (usage.status, usage.facts["error"]["code"]) == (2, "usage")


def test_a_name_prints_in_any_locale(desk: Desk) -> None:
    file = desk.put("license.json", desk.vendor.license(customer_name="Złoty ☃"))
    for locale in ("C", "en_US.ISO-8859-1"):
        ended = run_installed("inspect", file, LC_ALL=locale, PYTHONIOENCODING="latin-1")
        assert ended.status == 0, ended.stderr


def test_a_reader_that_leaves_is_no_crash(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [BIN / "router-license", "explain", "expired"],
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_verifying_a_file_imports_nothing_heavy(desk: Desk) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    file = desk.put("license.json", desk.vendor.license())
    program = (
        "import sys\n"
        "from router.commands.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0, ended.code\n"
        "heavy = {'aiohttp', 'flask', 'sqlalchemy', 'asyncio', 'ssl', 'portal', 'click'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "verify", file, "--keyset", keyset, "--as-of", str(AT)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (ended.returncode, ended.stderr) == (0, "\n")


def test_a_file_may_be_named_by_a_pipe(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keyset = desk.put("keyset.json", desk.vendor.keyset())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(desk.vendor.license())))
    ended = desk.run("verify", "-", "--keyset", keyset, "--as-of", str(AT), "--json")
    assert ended.facts["result"] == "valid"


def leaves(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """Yield the commands that do something."""
    groups = [each for each in parser._actions if isinstance(each, _SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for each in group.choices.values():
            yield from leaves(each)


def test_every_command_runs_a_function_that_is_there() -> None:
    found = list(leaves(_parser()))
    assert len(found) > 12
    for each in found:
        module = importlib.import_module(f"router.commands.{each.get_default('module')}")
        assert callable(getattr(module, each.get_default("function"))), each.prog
