"""Every failure mode through a running router: what each surface shows, and what none ever shows.

Source: the table of failure modes of the vendor's reference, with the further codes of the router.
The router runs under a hook that ends it when it looks up or connects to anything but its upstream.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from licensing.envelope import Envelope
from licensing.license import Binding, Budget, Limits, RevocationTerms
from licensing.names import ROUTER_CODES
from licensing.revocation import NO_BUNDLE, RevocationBundle
from router.state.store import State
from tests.router.papers import DAY_S, Vendor, entry, identifier
from tests.router.running import (
    NOW,
    OTHER_TOKEN,
    TOKEN,
    House,
    TodaysVendor,
    house,
)
from tests.router.shown import Mode, require_shown
from tests.router.test_lease_mode import MODES as LEASE_MODES
from tests.spread import spread

pytestmark = pytest.mark.slow

DEPLOYMENT = identifier("dep", 1)
BUDGET = Budget(budget_id=identifier("bud", 1), tokens_total=10)
GRACED = {"grace_period_on_validation_error": "24h"}


def changed(**changes: object) -> Callable[[House], None]:
    """Install a license with changes."""
    return lambda house: house.install(**changes)


def raw(data: bytes) -> Callable[[House], None]:
    """Put bytes where the license should be."""
    return lambda house: house.put(house.license_file, data)


def nothing(_: House) -> None:
    """Leave everything as it is: there is no license."""


def unreadable(house: House) -> None:
    """A directory where the license should be."""
    house.license_file.mkdir()


def wrong_signature(house: House) -> None:
    """Change one byte of the payload's base64."""
    data = bytearray(house.vendor.license())
    at = data.index(b'"payload":"') + 40
    data[at] = data[at] + 1 if data[at] != ord("z") else ord("a")
    house.put(house.license_file, bytes(data))


def another_vendors(house: House) -> None:
    """A license by keys nobody here trusts."""
    house.put(house.license_file, TodaysVendor("somebody else").license())


def compromised(house: House) -> None:
    """The key that signed was withdrawn."""
    house.install()
    house.put(house.keyset_file, TodaysVendor(status="compromised").keyset())


def no_keyset(house: House) -> None:
    """The keyset was cut short."""
    house.install()
    house.put(house.keyset_file, b"{")


def strange_keyset(house: House) -> None:
    """A keyset that its roots did not sign."""
    house.install()
    signed = Envelope.parse(house.vendor.keyset())
    other = Envelope.parse(Vendor("somebody else").keyset())
    mixed = Envelope(signed.payload, signed.payload_type, other.signatures)
    house.put(house.keyset_file, mixed.to_bytes())


def revoked_by(status: str) -> Callable[[House], None]:
    """Install a license and a bundle that names it."""

    def arrange(house: House) -> None:
        house.install()
        house.use_bundle(house.vendor.bundle(entry(status, NOW - 60)))

    return arrange


def older_revision(house: House) -> None:
    """A later revision served here."""
    house.install(revision=3)
    house.prepare_state(lambda state: msgspec.structs.replace(state, revisions={DEPLOYMENT: 4}))


def bundle_asked_by_license(house: House) -> None:
    """The license asks for a bundle; the configuration uses none."""
    house.install(revocation=RevocationTerms(require_current_bundle=True, min_version=0))


def bundle_asked_by_config(house: House) -> None:
    """The configuration asks for a bundle that is not there."""
    house.install()
    house.use_bundle(None, require_current_bundle=True)


def with_bundle(data: Callable[[House], bytes]) -> Callable[[House], None]:
    """Install a license beside a bundle."""

    def arrange(house: House) -> None:
        house.install()
        house.use_bundle(data(house))

    return arrange


def bundle_gone(house: House) -> None:
    """A bundle was seen, and its file is gone."""
    older_bundle(house)
    house.bundle_file.unlink()


def older_bundle(house: House) -> None:
    """A newer bundle was seen."""
    house.install()
    house.use_bundle(house.vendor.bundle())
    newer = house.vendor.bundle(version=NOW)
    document = msgspec.json.decode(Envelope.parse(newer).payload)

    def seen(state: State) -> State:
        bundle = msgspec.convert(document, RevocationBundle)
        return state.bundle_seen(bundle.iss, NO_BUNDLE.seen(bundle, "0" * 64, identifier("lic", 1)))

    house.prepare_state(seen)


def clock_behind(house: House) -> None:
    """The router served an hour from now, with this license."""
    house.install()
    house.prepare_state(
        lambda state: msgspec.structs.replace(state.now_seen(NOW + 3600), revisions={DEPLOYMENT: 1})
    )


def altered_state(house: House) -> None:
    """Somebody set a counter back."""
    house.install()
    house.prepare_state(lambda state: state.now_seen(NOW - DAY_S))
    text = house.state_file.read_text()
    house.state_file.write_text(re.sub(r'"wall_floor": \d+', '"wall_floor": 1', text))


def state_without_key(house: House) -> None:
    """A state that was copied here."""
    house.install()
    house.prepare_state(lambda state: state)
    house.state_file.with_name(house.state_file.name + ".key").unlink()


def grace_over(house: House) -> None:
    """The file is missing, and was for too long."""
    data = house.vendor.license()
    house.settings |= GRACED
    house.prepare_state(
        lambda state: state.license_valid(data, NOW - 2 * DAY_S).grace_begun(NOW - DAY_S, "missing")
    )


def expired_in_grace(house: House) -> None:
    """Grace covers a missing file, never the license's end."""
    data = house.vendor.license(expires_at=NOW - 10)
    house.settings |= GRACED
    house.prepare_state(lambda state: state.license_valid(data, NOW - DAY_S))


def too_many_seats(house: House) -> None:
    """More callers are configured than the license permits."""
    house.install(limits=Limits(max_seats=1))
    house.callers = [
        {"name": name, "token_sha256": sha256(token.encode()).hexdigest()}
        for name, token in (("app-1", TOKEN), ("app-2", OTHER_TOKEN))
    ]


def two_features(house: House) -> None:
    """A model needs what the license does not include."""
    house.install()
    house.features = ("routing", "pii_filtering")


MODES = [
    Mode("no file", "license-missing", nothing, "missing", genuine=False),
    Mode("a directory", "license-missing", unreadable, "missing", genuine=False),
    Mode("grace over", "license-missing", grace_over, "missing"),
    Mode("cut short", "license-invalid", raw(b'{"payl'), "malformed-envelope", genuine=False),
    Mode("edited", "license-invalid", wrong_signature, "bad-signature", genuine=False),
    Mode("a bundle", "license-invalid", raw(TodaysVendor().bundle()), "wrong-type", genuine=False),
    Mode("strange key", "license-invalid", another_vendors, "untrusted-key", genuine=False),
    Mode("withdrawn key", "license-invalid", compromised, "key-not-valid", genuine=False),
    Mode("old keyset", "license-invalid", changed(min_keyset_version=2), "keyset-too-old"),
    Mode(
        "other issuer", "license-invalid", changed(iss="x.example"), "wrong-issuer", genuine=False
    ),
    Mode("half a keyset", "license-invalid", no_keyset, "keyset-unreadable", genuine=False),
    Mode("no one's keyset", "license-invalid", strange_keyset, "untrusted-key", genuine=False),
    Mode("over", "license-expired", changed(expires_at=NOW - 5), "expired"),
    Mode("over in grace", "license-expired", expired_in_grace, "expired"),
    Mode("not begun", "license-not-yet-valid", changed(not_before_at=NOW + 999), "not-yet-valid"),
    Mode(
        "other product",
        "license-product-mismatch",
        changed(product="another-router"),
        "wrong-product",
        genuine=False,
    ),
    Mode("feature", "license-feature-forbidden", two_features, status=403, ready=True),
    Mode("budget", "license-limit-exceeded", changed(budget=BUDGET), status=429, ready=True),
    Mode(
        "window",
        "license-limit-exceeded",
        changed(limits=Limits(tokens_per_window=10, window_s=3600)),
        status=429,
        ready=True,
    ),
    Mode("seats", "license-limit-exceeded", too_many_seats, "max-seats"),
    Mode("revoked", "license-revoked", revoked_by("revoked"), "revoked"),
    Mode("suspended", "license-suspended", revoked_by("suspended"), "suspended"),
    Mode("superseded", "license-superseded", revoked_by("superseded"), "superseded"),
    Mode("older revision", "license-superseded", older_revision, "rolled-back"),
    Mode(
        "license asks",
        "license-revocation-required",
        bundle_asked_by_license,
        "revocation-required",
    ),
    Mode(
        "config asks", "license-revocation-required", bundle_asked_by_config, "revocation-required"
    ),
    Mode(
        "malformed bundle",
        "license-revocation-check-failed",
        with_bundle(lambda house: b"{}"),
        "revocation-unusable",
    ),
    Mode(
        "expired bundle",
        "license-revocation-check-failed",
        with_bundle(lambda house: house.vendor.bundle(expires_at=NOW - 5)),
        "revocation-unusable",
    ),
    Mode(
        "untrusted bundle",
        "license-revocation-check-failed",
        with_bundle(lambda house: TodaysVendor("somebody else").bundle()),
        "revocation-unusable",
    ),
    Mode("older bundle", "license-revocation-check-failed", older_bundle, "revocation-unusable"),
    Mode("bundle gone", "license-revocation-check-failed", bundle_gone, "revocation-unusable"),
    Mode("clock", "license-clock-rollback", clock_behind, "clock-rollback"),
    Mode(
        "fingerprint",
        "license-instance-mismatch",
        changed(binding=Binding(fingerprints=("fp_of_another",))),
        "wrong-instance",
    ),
    Mode("altered state", "license-state-invalid", altered_state, "state-invalid", genuine=False),
    Mode(
        "copied state", "license-state-invalid", state_without_key, "state-invalid", genuine=False
    ),
]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as built:
        yield built


@pytest.mark.parametrize("mode", spread(MODES, 3), ids=lambda mode: mode.name.replace(" ", "-"))
def test_a_failure_mode_on_every_surface(mode: Mode, installed: House) -> None:
    mode.arrange(installed)
    installed.start()
    require_shown(mode, installed)


def test_each_row_of_the_reference_and_each_further_code_is_covered() -> None:
    leased = {code for code, _, _ in LEASE_MODES.values()} | {"license-lease-expired"}
    assert {mode.code for mode in MODES} | leased == set(ROUTER_CODES)


def test_config_rejects_enabled_false(installed: House) -> None:
    installed.install()
    installed.settings["enabled"] = False
    exit_code, said = installed.fail_to_start()
    assert exit_code == 2
    assert "config rejects enabled: false" in said
