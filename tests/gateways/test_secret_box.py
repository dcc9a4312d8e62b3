"""Secrets in rows: they open in their own row, with their own key, unchanged, or not at all."""

import pytest

from portal.domain.ports import SealBroken
from portal.gateways.secret_box import AesGcmBox
from portal.gateways.system import SystemRandomness

KEY = b"a data key that tests alone may use!"
SECRET = b"JBSWY3DPEHPK3PXP"


@pytest.fixture
def box() -> AesGcmBox:
    return AesGcmBox(KEY, SystemRandomness())


@pytest.mark.asvs("6.5.1")
def test_a_secret_opens_in_its_own_row(box: AesGcmBox) -> None:
    sealed = box.seal(SECRET, "per_1")
    assert SECRET not in sealed
    assert box.open(sealed, "per_1") == SECRET
    assert AesGcmBox(KEY, SystemRandomness()).open(sealed, "per_1") == SECRET
    assert box.open(box.seal(b"", "per_1"), "per_1") == b""


@pytest.mark.asvs("11.3.4")
def test_the_same_secret_is_never_sealed_alike(box: AesGcmBox) -> None:
    assert len({box.seal(SECRET, "per_1") for _ in range(100)}) == 100


@pytest.mark.asvs("11.3.3")
@pytest.mark.parametrize("row_id", ["per_2", "per_1 ", "PER_1", ""])
def test_a_swapped_ciphertext_does_not_open(box: AesGcmBox, row_id: str) -> None:
    with pytest.raises(SealBroken):
        box.open(box.seal(SECRET, "per_1"), row_id)


@pytest.mark.asvs("11.3.3")
def test_a_changed_ciphertext_does_not_open(box: AesGcmBox) -> None:
    sealed = box.seal(SECRET, "per_1")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SealBroken):
            box.open(bytes(changed), "per_1")


@pytest.mark.asvs("11.3.3")
def test_a_cut_or_longer_ciphertext_does_not_open(box: AesGcmBox) -> None:
    sealed = box.seal(SECRET, "per_1")
    for spoiled in (*(sealed[:length] for length in range(len(sealed))), sealed + b"\0"):
        with pytest.raises(SealBroken):
            box.open(spoiled, "per_1")


def test_another_key_does_not_open(box: AesGcmBox) -> None:
    other = AesGcmBox(KEY[::-1], SystemRandomness())
    with pytest.raises(SealBroken) as raised:
        other.open(box.seal(SECRET, "per_1"), "per_1")
    assert SECRET.decode() not in str(raised.value)
