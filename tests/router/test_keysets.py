"""Which keyset counts when the clock was wrong at first: the files stay, the time goes on."""

from pathlib import Path

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from router.documents.keysets import Keysets, keyset_file
from tests.router.papers import AT, DAY_S, Vendor

FIRST = Vendor().keyset()
SECOND = Vendor(version=2).keyset(
    issued_at=AT, prev_sha256=sha256_hex(Envelope.parse(FIRST).payload)
)


def test_the_keyset_counts_once_the_clock_is_set_right(tmp_path: Path) -> None:
    (tmp_path / "keyset.json").write_bytes(FIRST)
    keysets = Keysets(tmp_path / "keyset.json", tmp_path / "lease", lambda _: None)
    keysets.read(AT - 99 * DAY_S)
    assert keysets.error is not None
    assert keysets.error.code == "not-yet-valid"
    keysets.read(AT)
    assert keysets.error is None
    assert keysets.held is not None


def test_a_kept_version_counts_once_the_clock_is_set_right(tmp_path: Path) -> None:
    (tmp_path / "keyset.json").write_bytes(FIRST)
    (tmp_path / keyset_file(2)).write_bytes(SECOND)
    said: list[str] = []
    keysets = Keysets(tmp_path / "keyset.json", tmp_path, said.append)
    keysets.read(AT - 301)
    assert keysets.held is not None
    assert keysets.held.document.version == 1
    keysets.read(AT - 300)
    assert keysets.held.document.version == 2
    keysets.read(AT)
    assert len(said) == 1
