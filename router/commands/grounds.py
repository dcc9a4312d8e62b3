"""What a command about the lease needs: license, keys and usage, named or remembered."""

import argparse
from dataclasses import replace
from pathlib import Path

from licensing.envelope import MAX_BUNDLE_BYTES, MAX_BYTES
from licensing.errors import LicensingError
from licensing.keys import Keyset
from licensing.verify import KeysetTrust, Trust, Verified, verify_bundle
from router.commands.options import keyset_paths, named_keyset, open_trust, read_code, read_input
from router.commands.report import say
from router.documents.keysets import Keysets
from router.errors import UsageError
from router.files import read_at_most
from router.lease.store import BUNDLE_FILE, LICENSE_FILE, LeaseState
from router.network.agent import Enrollment, Grounds, best_grounds, read_grounds, usage_of
from router.state.store import State, StateFile, StateInvalid


def named_enrollment(options: argparse.Namespace) -> Enrollment:
    """Return what to enroll with.

    Raises:
        UsageError: there is no code.
    """
    return Enrollment(
        read_code(options),
        fingerprint=options.fingerprint,
        label=options.label,
        license_path=None if options.license in (None, "-") else Path(options.license),
        keyset_path=named_keyset(options),
    )


def named_grounds(options: argparse.Namespace, at: int) -> Grounds:
    """Read the named license and keyset.

    Raises:
        UsageError: one of them is not named.
        LicensingError: the license does not verify here and now.
    """
    if options.license is None:
        raise UsageError("name the license with --license FILE")
    trust = open_trust(options, at)
    return read_grounds(read_input(options.license, "license"), trust, at, options.fingerprint)


def remembered_grounds(options: argparse.Namespace, state: LeaseState, at: int) -> Grounds:
    """Read the license and the keyset used at enrollment, unless others are named.

    Raises:
        UsageError: neither is known.
        LicensingError: the license does not verify here and now.
    """
    options.keyset = named_keyset(options) or state.keyset_path
    license_path = options.license or state.license_path
    if license_path is None:
        raise UsageError("name the license with --license FILE")
    trust = _lease_trust(options, at)
    fetched = read_at_most(options.state_dir / LICENSE_FILE, MAX_BYTES)
    file = read_input(license_path, "license")
    grounds = best_grounds(file, fetched, trust, at, state.fingerprint)
    bundle = read_at_most(options.state_dir / BUNDLE_FILE, MAX_BUNDLE_BYTES)
    grounds = replace(
        grounds, bundle_version=0 if bundle is None else _bundle_version(bundle, trust, at)
    )
    counted = _counted(state)
    if counted is None:
        return grounds
    return replace(
        grounds,
        usage=usage_of(counted, grounds.license, state.held()),
        periods=counted.periods.get(grounds.license.document.deployment_id, {}),
    )


def later_keyset(options: argparse.Namespace, at: int) -> Verified[Keyset] | None:
    """Return the keyset, or the latest version of it in the lease directory.

    Raises:
        UsageError: no keyset is named.
    """
    if options.public_key:
        return None
    base, offered = keyset_paths(options)
    keysets = Keysets(base, options.state_dir, say, offered)
    keysets.read(at)
    return keysets.held


def _lease_trust(options: argparse.Namespace, at: int) -> Trust:
    """Return what a lease is verified with: the keyset, or a later one from the portal."""
    trust = open_trust(options, at)
    held = later_keyset(options, at)
    if held is None or held.document.version <= (trust.version or 0):
        return trust
    return KeysetTrust(held.document)


def _bundle_version(data: bytes, trust: Trust, at: int) -> int:
    """Return the version of the stored bundle; 0 if it no longer verifies."""
    try:
        return verify_bundle(data, trust, at, require_current=False).document.version
    except LicensingError as error:
        say(f"warning: the stored revocation bundle is ignored: {error.detail}")
        return 0


def _counted(state: LeaseState) -> State | None:
    """Return the state of the router beside the lease directory; None where it is not known."""
    if state.state_path is None:
        return None
    try:
        return StateFile(Path(state.state_path)).peek()
    except StateInvalid as error:
        say(f"warning: usage is not reported: {error.message}")
        return None
