"""Ed25519 as RFC 8032 section 7.1 gives it, through `licensing.keys`, and what must not verify."""

from dataclasses import dataclass

import pytest

from licensing.errors import MalformedPayload
from licensing.keys import PublicKey

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19


@dataclass(frozen=True)
class Vector:
    """A key, a message and its signature, in hex."""

    name: str
    public_key: str
    message: str
    signature: str


VECTORS = (
    Vector(
        "TEST 1",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    Vector(
        "TEST 2",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    Vector(
        "TEST 3",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    Vector(
        "TEST 1024",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12"
        "ee50f8f54e9f77b1e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe57"
        "38829adb26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338b"
        "bd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4fe"
        "ba15452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b8"
        "32f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc10"
        "3b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53"
        "f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2"
        "d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6"
        "079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553"
        "878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2"
        "cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128ba"
        "b27af87a71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae078"
        "4504df543af8969be3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8"
        "fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301"
        "651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8"
        "ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34dff7310fdc82aebfd9"
        "04b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7"
        "984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276cd419c17a"
        "3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a3"
        "2ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a4"
        "3dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041"
        "e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d9"
        "0d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380d"
        "b2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef"
        "68d3a101e8a3b8cac60c905c15fc910840b94c00a0b9d0",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350"
        "aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    Vector(
        "TEST SHA(abc)",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
)

FLIPPED_BYTES = range(0, 64, 5)


def _key(vector: Vector) -> PublicKey:
    return PublicKey(bytes.fromhex(vector.public_key))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_verifies(vector: Vector) -> None:
    message, signature = bytes.fromhex(vector.message), bytes.fromhex(vector.signature)
    assert _key(vector).verify(signature, message)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_changed_signature_does_not_verify(vector: Vector) -> None:
    message, signature = bytes.fromhex(vector.message), bytes.fromhex(vector.signature)
    for position in FLIPPED_BYTES:
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not _key(vector).verify(bytes(changed), message)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_changed_message_does_not_verify(vector: Vector) -> None:
    message, signature = bytes.fromhex(vector.message), bytes.fromhex(vector.signature)
    assert not _key(vector).verify(signature, message + b"\0")
    assert not _key(vector).verify(signature, b"\0" + message)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_another_key_does_not_verify(vector: Vector) -> None:
    other = next(each for each in VECTORS if each is not vector)
    assert not _key(other).verify(bytes.fromhex(vector.signature), bytes.fromhex(vector.message))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_malleable_signature_does_not_verify(vector: Vector) -> None:
    """RFC 8032 section 5.1.7: S must be below the order of the base point."""
    signature = bytes.fromhex(vector.signature)
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    changed = signature[:32] + scalar.to_bytes(32, "little")
    assert not _key(vector).verify(changed, bytes.fromhex(vector.message))


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_a_signature_of_another_length_does_not_verify(length: int) -> None:
    assert not _key(VECTORS[0]).verify(bytes(length), b"")


def test_the_identity_would_have_signed_everything() -> None:
    """With the identity as key, R = identity and S = 0 fit any message: so it is no key."""
    with pytest.raises(MalformedPayload, match="small order"):
        PublicKey((1).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1 << 255], ids=["even", "odd"])
@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_non_canonical_keys(y: int, sign: int) -> None:
    with pytest.raises(MalformedPayload, match="canonical"):
        PublicKey((y | sign).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1 << 255], ids=["even", "odd"])
@pytest.mark.parametrize("y", [0, 1, P - 1])
def test_small_order_keys(y: int, sign: int) -> None:
    with pytest.raises(MalformedPayload, match="small order"):
        PublicKey((y | sign).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 0x80], ids=["even", "odd"])
@pytest.mark.parametrize(
    "text",
    [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ],
)
def test_keys_of_order_8(text: str, sign: int) -> None:
    raw = bytearray.fromhex(text)
    raw[31] |= sign
    with pytest.raises(MalformedPayload, match="small order"):
        PublicKey(bytes(raw))
