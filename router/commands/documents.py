"""`router-license verify`, `summarize`, `inspect`, `bundle verify` and `keyset verify`."""

import argparse
from pathlib import Path
from typing import Any

from licensing.encoding import parse_json, sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError, MalformedPayload
from licensing.license import License
from licensing.verify import RevocationPolicy, examine_license, verify_bundle, verify_keyset
from router.clock import instant
from router.commands.options import moment, names_trust, open_trust, read_input, reading
from router.commands.report import refuse, safe_summary, say, show
from router.errors import OK
from router.files import read_file


def run_verify(options: argparse.Namespace) -> int:
    """Verify a license completely."""
    at = moment(options)
    data = read_input(options.file, "license")
    bundle = read_file(Path(options.bundle), "revocation bundle") if options.bundle else None
    report = examine_license(
        data,
        open_trust(options, at),
        at,
        fingerprint=options.fingerprint,
        bundles=() if bundle is None else (bundle,),
        policy=RevocationPolicy(require_current=options.require_current_bundle),
    )
    if report.error is not None or report.verified is None:
        error = report.error
        assert error is not None
        return refuse(error, as_json=options.json, also=report.also)
    verified = report.verified
    summary = safe_summary(
        verified.document, status="valid", keyid=verified.keyid, sha256=verified.payload_sha256
    )
    if options.json:
        show({"result": "valid", **summary}, as_json=True)
    else:
        show(
            {"result": "valid"} | {key: summary[key] for key in summary if key != "status"},
            as_json=False,
        )
        if verified.document.binding.fingerprints and options.fingerprint is None:
            say("the license is bound; check this instance's fingerprint with --fingerprint")
    return OK


def run_summarize(options: argparse.Namespace) -> int:
    """Print the facts of a license that are safe to share; verify it if a keyset is named."""
    at = moment(options)
    data = read_input(options.file, "license")
    envelope = Envelope.parse(data)
    license_ = License.parse(envelope.payload)
    status, keyid = "UNVERIFIED", envelope.signatures[0].keyid
    if names_trust(options):
        report = examine_license(data, open_trust(options, at), at)
        status = report.error.code if report.error else "valid"
        keyid = report.verified.keyid if report.verified else keyid
    sha256 = sha256_hex(envelope.payload)
    show(safe_summary(license_, status=status, keyid=keyid, sha256=sha256), as_json=options.json)
    return OK


def run_inspect(options: argparse.Namespace) -> int:
    """Print everything a signed file contains, marked UNVERIFIED until it is verified."""
    at = moment(options)
    data = read_input(options.file, "file")
    with reading("file"):
        envelope = Envelope.parse(data, max_bytes=MAX_BUNDLE_BYTES)
    status = "UNVERIFIED"
    if envelope.payload_type == License.PAYLOAD_TYPE and names_trust(options):
        report = examine_license(data, open_trust(options, at), at)
        status = f"INVALID: {report.error.code}" if report.error else "verified"
    with reading("file"):
        try:
            payload = parse_json(envelope.payload, max_bytes=MAX_BUNDLE_BYTES)
        except LicensingError as error:
            raise MalformedPayload(error.detail) from error
    facts = {
        "status": status,
        "payload_type": envelope.payload_type,
        "keyids": [signature.keyid for signature in envelope.signatures],
        "file_sha256": sha256_hex(data),
        "payload_sha256": sha256_hex(envelope.payload),
        "payload": payload,
    }
    if options.json:
        show(facts, as_json=True)
        return OK
    show({key: value for key, value in facts.items() if key != "payload"}, as_json=False)
    for name, value in payload.items() if isinstance(payload, dict) else ():
        is_time = name.endswith("_at") and isinstance(value, int)
        show({f"  {name}": f"{value} ({instant(value)})" if is_time else value}, as_json=False)
    if status == "UNVERIFIED":
        say("UNVERIFIED: anybody could have written this; run router-license verify")
    return OK


def run_bundle_verify(options: argparse.Namespace) -> int:
    """Verify a revocation bundle."""
    at = moment(options)
    trust = open_trust(options, at)
    data = read_input(options.file, "bundle")
    with reading("revocation bundle"):
        verified = verify_bundle(data, trust, at, floor=options.floor)
    bundle = verified.document
    facts = {
        "result": "valid",
        "version": bundle.version,
        "issued_at": instant(bundle.issued_at),
        "expires_at": instant(bundle.expires_at),
        "entries": len(bundle.entries),
        "key_id": verified.keyid,
    }
    show(facts, as_json=options.json)
    return OK


def run_keyset_verify(options: argparse.Namespace) -> int:
    """Verify a keyset under its own roots."""
    at = moment(options)
    data = read_input(options.file, "keyset")
    with reading("keyset"):
        verified = verify_keyset(data, at)
    keyset = verified.document
    expired = at >= keyset.expires_at
    facts: dict[str, Any] = {
        "result": "valid",
        "version": keyset.version,
        "issuer": keyset.iss,
        "expires_at": instant(keyset.expires_at),
        "expired": expired,
        "roots": [root.keyid for root in keyset.roots],
        "root_threshold": keyset.root_threshold,
        "keys": [f"{key.role} {key.status} {key.keyid}" for key in keyset.keys],
    }
    show(facts, as_json=options.json)
    if expired:
        say("warning: the keyset has expired; it still verifies licenses, but cannot be updated")
    return OK
