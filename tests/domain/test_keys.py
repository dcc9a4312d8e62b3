"""The next keyset: whatever is announced, retired or compromised, it continues the one before."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.envelope import Envelope, Signature, pae
from licensing.keys import ZERO_SHA256, Keyset
from licensing.names import PRODUCT, ROLES
from licensing.verify import Verified, verify_keyset, verify_keyset_update
from portal.domain.errors import Conflict, Invalid, PortalError
from portal.domain.keys import (
    ACTIVATE_IN_S,
    BACKDATE_S,
    KEYSET_LIFETIME_S,
    ROOT,
    Held,
    announced,
    compromised,
    heir,
    misfit,
    new_key,
    new_root,
    require_compromisable,
    require_retirable,
    require_rotatable,
    retired,
    signing_keys,
    with_root,
)
from tests.fakes import MemorySigner

AT = 1_800_000_000
DAY_S = 86400


class Vendor:
    """Holds every private key there ever was, and publishes keysets."""

    def __init__(self) -> None:
        self.keys: dict[str, MemorySigner] = {}
        self.at = AT
        roots, keys = (
            (new_root(self.make()),),
            tuple(new_key(self.make(), role, AT - BACKDATE_S) for role in ROLES),
        )
        first = Keyset(
            typ=Keyset.TYP,
            iss="metrum.ai",
            product=PRODUCT,
            issued_at=AT,
            version=1,
            expires_at=AT + KEYSET_LIFETIME_S,
            prev_sha256=ZERO_SHA256,
            root_threshold=1,
            roots=roots,
            keys=keys,
        )
        self.published = [self.sign(first)]

    def make(self) -> bytes:
        signer = MemorySigner(f"key {len(self.keys)}".encode())
        self.keys[signer.keyid] = signer
        return signer.public_key

    def sign(self, keyset: Keyset, *held: Keyset) -> bytes:
        payload = keyset.to_bytes()
        message = pae(Keyset.PAYLOAD_TYPE, payload)
        by = dict.fromkeys(root for each in (*held, keyset) for root in each.roots_by_keyid)
        signatures = tuple(Signature(each, self.keys[each].sign(message)) for each in by)
        return Envelope(payload, Keyset.PAYLOAD_TYPE, signatures).to_bytes()

    @property
    def newest(self) -> Verified[Keyset]:
        return verify_keyset(self.published[-1], self.at)

    @property
    def held(self) -> Held:
        return Held(self.newest.document, self.newest.payload_sha256)

    def publish(self, keyset: Keyset) -> None:
        self.published.append(self.sign(keyset, self.newest.document))

    def rotate(self, role: str, activate_in_s: int) -> None:
        require_rotatable(self.held.keyset, role, activate_in_s)
        public = self.make()
        if role == ROOT:
            self.publish(with_root(self.held, new_root(public), self.at))
        else:
            key = new_key(public, role, self.at + activate_in_s)
            self.publish(announced(self.held, key, self.at))

    def retire(self, keyid: str) -> None:
        require_retirable(self.held.keyset, keyid, self.at)
        self.publish(retired(self.held, keyid, self.at))

    def compromise(self, keyid: str) -> None:
        key = require_compromisable(self.held.keyset, keyid)
        successor = heir(self.held.keyset, key) or new_key(self.make(), key.role, self.at)
        begins_at = self.at - BACKDATE_S
        self.publish(compromised(self.held, keyid, successor, self.at, begins_at=begins_at))

    def keyid(self, role: str, number: int) -> str:
        keyset = self.held.keyset
        listed = keyset.roots if role == ROOT else [k for k in keyset.keys if k.role == role]
        return listed[number % len(listed)].keyid


acts = st.lists(
    st.tuples(
        st.sampled_from(["rotate", "retire", "compromise", "wait"]),
        st.sampled_from([ROOT, *ROLES]),
        st.integers(0, 5),
        st.sampled_from([0, 1, DAY_S, ACTIVATE_IN_S]),
    ),
    max_size=14,
)


@given(acts)
def test_no_keyset_breaks_the_update_from_the_one_before(chosen: list[Any]) -> None:
    vendor = Vendor()
    for act, role, number, seconds in chosen:
        vendor.at += seconds if act == "wait" else 1
        try:
            if act == "rotate":
                vendor.rotate(role, seconds)
            elif act == "retire":
                vendor.retire(vendor.keyid(role, number))
            elif act == "compromise":
                vendor.compromise(vendor.keyid(role, number))
        except PortalError:
            pass
        for name in ROLES:
            assert signing_keys(vendor.held.keyset, name, vendor.at), (act, role)
    for before, after in zip(vendor.published, vendor.published[1:], strict=False):
        held, taken = verify_keyset(before, vendor.at), verify_keyset(after, vendor.at)
        verify_keyset_update(after, held, vendor.at)
        listed = {key.keyid: key for key in taken.document.keys}
        for key in held.document.keys:
            assert listed[key.keyid].public_key == key.public_key
            if key.status == "compromised":
                assert listed[key.keyid].status == "compromised"
    # And in one leap, with the versions between, from whichever a router has.
    for number, each in enumerate(vendor.published[:-1]):
        held, steps = verify_keyset(each, vendor.at), vendor.published[number + 1 : -1]
        verify_keyset_update(vendor.published[-1], held, vendor.at, steps=steps)


def test_two_keys_sign_from_the_activation_to_the_retirement() -> None:
    vendor = Vendor()
    old = vendor.keyid("license", 0)
    vendor.rotate("license", ACTIVATE_IN_S)
    new = vendor.keyid("license", 1)

    def signers(at: int) -> list[str]:
        return [key.keyid for key in signing_keys(vendor.held.keyset, "license", at)]

    begins_at = vendor.at + ACTIVATE_IN_S
    assert (signers(begins_at - 1), signers(begins_at)) == ([old], [new, old])
    with pytest.raises(Conflict, match="No other license key is active yet"):
        vendor.retire(old)
    vendor.at = begins_at + DAY_S
    vendor.retire(old)
    assert signers(vendor.at) == [new]
    (key,) = (key for key in vendor.held.keyset.keys if key.keyid == old)
    assert (key.status, key.not_after_at) == ("retired", vendor.at + BACKDATE_S)
    assert key.covers(vendor.at - 1)
    assert not key.covers(vendor.at + BACKDATE_S)


def test_a_stopped_key_signs_nothing() -> None:
    keyset = Vendor().held.keyset
    stopped = frozenset(key.keyid for key in keyset.keys if key.role == "lease")
    assert signing_keys(keyset, "lease", AT, stopped=stopped) == ()
    assert len(signing_keys(keyset, "license", AT, stopped=stopped)) == 1


def test_a_second_rotation_waits_for_the_first() -> None:
    vendor = Vendor()
    first = vendor.keyid("lease", 0)
    vendor.rotate("lease", 0)
    with pytest.raises(Conflict, match=f"retire {first} first"):
        vendor.rotate("lease", 0)
    vendor.rotate(ROOT, 0)
    with pytest.raises(Conflict, match="retire one first"):
        vendor.rotate(ROOT, 0)


@pytest.mark.parametrize("seconds", [-1, 366 * DAY_S])
def test_a_key_is_activated_within_a_year(seconds: int) -> None:
    with pytest.raises(Invalid, match="within 365 days"):
        Vendor().rotate("license", seconds)


def test_an_announced_key_takes_the_place_of_a_compromised_one_at_once() -> None:
    vendor = Vendor()
    old = vendor.keyid("license", 0)
    vendor.rotate("license", ACTIVATE_IN_S)
    new = vendor.keyid("license", 1)
    vendor.compromise(old)
    assert [key.keyid for key in signing_keys(vendor.held.keyset, "license", vendor.at)] == [new]
    assert len(vendor.held.keyset.keys) == len(ROLES) + 1
    with pytest.raises(Conflict, match="compromised already"):
        vendor.compromise(old)


def test_a_root_is_rotated_not_marked() -> None:
    vendor = Vendor()
    with pytest.raises(Conflict, match="rotate the root"):
        vendor.compromise(vendor.keyid(ROOT, 0))
    with pytest.raises(Conflict, match="Add another root first"):
        vendor.retire(vendor.keyid(ROOT, 0))


@pytest.mark.parametrize(
    ("role", "uri", "fits"),
    [
        ("license", "aws-kms:alias/license-1", True),
        ("lease", "gcp-kms:x", True),
        ("revocation", "aws-kms:alias/revocation-1", False),
        ("root", "gcp-kms:x", False),
        ("root", "pkcs11:token=t;object=root-1", True),
        ("revocation", "vault:transit/revocation-1/1", True),
        ("root", "file:root-0011223344556677.pem", True),
    ],
)
def test_clouds_hold_keys_of_short_documents_alone(role: str, uri: str, fits: bool) -> None:
    assert (misfit(role, uri) is None) is fits


def test_an_announced_key_can_be_taken_back() -> None:
    vendor = Vendor()
    old = vendor.keyid("license", 0)
    vendor.rotate("license", ACTIVATE_IN_S)
    vendor.retire(vendor.keyid("license", 1))
    vendor.at += 2 * ACTIVATE_IN_S
    assert [key.keyid for key in signing_keys(vendor.held.keyset, "license", vendor.at)] == [old]
