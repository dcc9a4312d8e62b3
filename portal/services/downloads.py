"""A license's files: the license itself, a summary, a checklist, and a kit with everything.

The summary and the checklist hold safe facts only: never payloads, signatures, key material or
codes. Of a license that must not be installed they say so first, and not how to install it. Each
download is audited.

Source: "Safe summary" of the signed documents.
"""

import io
import json
import textwrap
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from licensing.encoding import sha256_hex
from licensing.license import License as LicensePayload
from licensing.names import CODES
from licensing.verify import KeysetTrust, examine_license
from portal.db.bundles import latest_bundle
from portal.db.deployments import Deployment
from portal.db.keys import latest_keyset
from portal.db.licenses import License
from portal.domain.advice import ADVICE, INSTALLABLE, Advice
from portal.domain.errors import Conflict
from portal.domain.standing import LicenseState, Standing
from portal.domain.terms import Mode
from portal.services.acts.replace import replacements_left
from portal.services.audit import record
from portal.services.context import Context
from portal.services.keys import current_keyset, unix
from portal.services.licenses import account_license, standing
from portal.services.renewals import can_ask_to_renew
from portal.services.replacements import replaceable

LICENSE_JSON: Final = "license.json"
SUMMARY_JSON: Final = "summary.json"
CHECKLIST_TXT: Final = "checklist.txt"
KIT_ZIP: Final = "kit.zip"
KEYSET_JSON: Final = "keyset.json"
BUNDLE_JSON: Final = "revocation-bundle.json"
SUMS: Final = "SHA256SUMS"

CONTENT_TYPES: Final = {
    LICENSE_JSON: "application/json",
    SUMMARY_JSON: "application/json",
    CHECKLIST_TXT: "text/plain; charset=utf-8",
    KIT_ZIP: "application/zip",
}
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Download:
    """A file, with what a person needs to check it."""

    name: str
    content: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.content)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, lower-case hex."""
        return sha256_hex(self.content)


def license_summary(license_: License, now: Standing) -> dict[str, Any]:
    """Return the facts of a license that may be shown, logged and mailed."""
    document = license_.document
    summary: dict[str, Any] = {
        "status": now.state,
        "license_id": license_.id,
        "customer_id": license_.account_id,
        "deployment_id": license_.deployment_id,
        "revision": license_.revision,
        "supersedes": None if document is None else document.supersedes,
        "sku": license_.sku,
        "mode": license_.mode,
        "key_id": license_.key_id,
        "sha256": license_.file_sha256,
    }
    if document is not None:
        summary |= {
            "issued_at": _time(document.issued_at),
            "not_before": _time(document.not_before_at),
            "expires_at": _time(document.expires_at),
            "features": list(document.features),
            "limits": msgspec.to_builtins(document.limits),
            "budget_tokens": None if document.budget is None else document.budget.tokens_total,
        }
    summary["replaced_by"] = now.replaced_by
    return {name: value for name, value in summary.items() if value is not None}


def _time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _summary_file(context: Context, license_: License) -> bytes:
    now = standing(context, license_)
    advice = ADVICE.get(now.state)
    notice = "Informational. Install the signed license.json; this file installs nothing."
    if advice is not None:
        notice = f"{advice.title}. {advice.todo} This file is informational and installs nothing."
    summary = {
        "notice": notice,
        "issuer": context.policy.issuer,
        **license_summary(license_, now),
    }
    return (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class CheckResult:
    """What `router-license verify` says of a license with what is published."""

    code: str
    """`valid`, or why it is not."""
    exit: int
    by_bundle: bool
    """Whether only the revocation bundle tells; without it the file verifies."""


def check_result(context: Context, license_: License, now: Standing) -> CheckResult:
    """Say what the verify command says of a license, by asking what it asks.

    The bundle follows standings within a minute, so the standing stands for it here.

    Raises:
        Conflict: the license is still being issued.
    """
    if license_.envelope is None:
        raise Conflict("The license is being issued; there is nothing to verify yet.")
    trust = KeysetTrust(current_keyset(context).document)
    error = examine_license(license_.envelope, trust, unix(context.at)).error
    if error is not None:
        return CheckResult(error.code, CODES[error.code].exit, by_bundle=False)
    if now.state in (LicenseState.REVOKED, LicenseState.SUSPENDED, LicenseState.SUPERSEDED):
        return CheckResult(now.state, CODES[now.state].exit, by_bundle=True)
    return CheckResult("valid", 0, by_bundle=False)


def verify_command(document: LicensePayload, *, with_bundle: bool = False) -> str:
    """Return the exact command that checks this license offline beside its keyset."""
    bundle = f" --bundle {BUNDLE_JSON}" if with_bundle else ""
    bound = f" --fingerprint {_fingerprint(document)}" if document.binding.fingerprints else ""
    return f"router-license verify {LICENSE_JSON} --keyset {KEYSET_JSON}{bundle}{bound}"


def config_lines(document: LicensePayload) -> str:
    """Return the YAML a router needs for this license."""
    return (
        "server:\n"
        "  license:\n"
        "    enabled: true\n"
        "    path: /app/config/license.json\n"
        "    state_path: /app/state/license-state.json\n"
        f'    instance_fingerprint: "{_fingerprint(document)}"\n'
    )


def _fingerprint(document: LicensePayload) -> str:
    """Return the fingerprint to configure: the first one the license is bound to, if any."""
    return next(iter(document.binding.fingerprints), "")


def _checklist(context: Context, license_: License, document: LicensePayload) -> bytes:
    deployment = context.session.get_one(Deployment, license_.deployment_id)
    now = standing(context, license_)
    result = check_result(context, license_, now)
    lines = [
        "Smart Router license: operator checklist",
        "",
        *_advice_lines(now),
        f"Deployment   {deployment.name}",
        f"License      {license_.id} (revision {license_.revision}, {license_.sku})",
        f"Key id       {license_.key_id}",
        f"SHA-256      {license_.file_sha256}",
        f"Valid from   {_time(document.not_before_at)}",
        f"Expires      {_time(document.expires_at)}",
        "",
        "[ ] 1. Check the file:",
        f"       {verify_command(document, with_bundle=result.by_bundle)}",
        f"       It prints '{result.code}' and exits {result.exit}.",
    ]
    if now.state in INSTALLABLE:
        lines += _install_lines(license_, document)
    elif now.replaced_by is not None and now.state is not LicenseState.REVOKED:
        lines += [f"[ ] 2. Install the newer license instead: {now.replaced_by}"]
    lines += [
        "",
        "This list and summary.json are for people. The router needs license.json.",
        "",
    ]
    return "\n".join(lines).encode()


def _advice_lines(now: Standing) -> list[str]:
    """Say first what is so and what to do, of a license that does not simply serve."""
    advice = ADVICE.get(now.state)
    if advice is None:
        return []
    return [advice.title.upper(), *textwrap.wrap(f"{advice.what} {advice.todo}", 90), ""]


def _install_lines(license_: License, document: LicensePayload) -> list[str]:
    lines = [
        "[ ] 2. Keep a copy of the license file that is installed now.",
        "[ ] 3. Put the signed license.json at server.license.path, replacing it in one step",
        "       (write beside it, then rename). Do not edit it: any change breaks the signature.",
        "[ ] 4. In the router's configuration:",
        *[f"       {line}" for line in config_lines(document).splitlines()],
        "[ ] 5. Restart the router, or wait for recheck_interval.",
    ]
    if license_.mode is Mode.LEASE:
        lines += [
            "[ ] 6. Make an enrollment code on the deployment's page, then enroll the router:",
            f"       router-license enroll --license {LICENSE_JSON} --keyset {KEYSET_JSON} \\",
            "         --state-dir /app/state/lease --code-file code.txt",
        ]
    number = 7 if license_.mode is Mode.LEASE else 6
    return [*lines, f'[ ] {number}. curl -fsS "$ROUTER_BASE_URL/readyz" answers 200.']


def make_download(context: Context, license_: License, name: str) -> Download:
    """Make one of a license's files.

    Raises:
        Conflict: the license is still being issued.
        KeyError: there is no file with this name.
    """
    document = license_.document
    if license_.envelope is None or document is None:
        raise Conflict("The license is being issued; its files will appear in a moment.")
    if name == LICENSE_JSON:
        return Download(name, license_.envelope)
    if name == SUMMARY_JSON:
        return Download(name, _summary_file(context, license_))
    if name == CHECKLIST_TXT:
        return Download(name, _checklist(context, license_, document))
    if name == KIT_ZIP:
        return Download(name, _kit(context, license_))
    raise KeyError(name)


def _kit(context: Context, license_: License) -> bytes:
    files = {
        each: make_download(context, license_, each).content
        for each in (LICENSE_JSON, SUMMARY_JSON, CHECKLIST_TXT)
    }
    keyset = latest_keyset(context.session)
    bundle = latest_bundle(context.session)
    if keyset is not None:
        files[KEYSET_JSON] = keyset.envelope
    if bundle is not None:
        files[BUNDLE_JSON] = bundle.envelope
    files[SUMS] = "".join(
        f"{sha256_hex(content)}  {name}\n" for name, content in sorted(files.items())
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as kit:
        for name, content in files.items():
            # A fixed date, so that the same files make the same kit.
            entry = zipfile.ZipInfo(f"smart-router-license/{name}", _ZIP_EPOCH)
            entry.external_attr = 0o600 << 16
            kit.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def record_download(context: Context, license_: License, name: str) -> None:
    """Record in the audit trail that a file of a license was downloaded."""
    record(
        context,
        "license.downloaded",
        "license",
        license_.id,
        account_id=license_.account_id,
        file=name,
        at=unix(context.at),
    )


@dataclass(frozen=True)
class LicensePage:
    """The facts of a license's page for members."""

    license: License
    deployment: Deployment
    now: Standing
    files: tuple[Download, ...]
    """All of its files; none while it is being issued."""
    result: CheckResult | None
    """What the verify command says; None while it is being issued."""
    is_replaceable: bool
    """Whether members can replace it by themselves, as long as `replacements_left` lets them."""
    replacements_left: int
    is_renewable: bool
    """Whether a request can renew it now."""

    @property
    def advice(self) -> Advice | None:
        """What is said first; None of a license in force."""
        return ADVICE.get(self.now.state)

    @property
    def is_installable(self) -> bool:
        """Whether there is something to install; else the files are for the records."""
        return self.now.state in INSTALLABLE


def license_page(context: Context, account_id: str, license_id: str) -> LicensePage:
    """Return the facts of a license's page.

    Raises:
        NotFound: there is none in this account.
    """
    license_ = account_license(context, account_id, license_id)
    now = standing(context, license_)
    released = license_.envelope is not None
    return LicensePage(
        license_,
        context.session.get_one(Deployment, license_.deployment_id),
        now,
        tuple(make_download(context, license_, name) for name in CONTENT_TYPES if released),
        check_result(context, license_, now) if released else None,
        replaceable(context, license_),
        replacements_left(context, license_.deployment_id),
        can_ask_to_renew(context, license_),
    )
