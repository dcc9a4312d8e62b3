"""A file as lines of text that each fit a QR code, for carrying it as pictures.

    SRC1/<number>/<total>/<tag>/<text>

`number` counts from 1; `tag` is the first 8 hex digits of the SHA-256 of the whole, the same in
each part; `text` is base64url without padding. The parts may come in any order, and more than once.

Source: "Courier" of the lease protocol.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from licensing.encoding import sha256_hex

PREFIX: Final = "SRC1"
PART_BYTES: Final = 900
"""Of the file in one part: 1,200 characters, which a QR code holds at a size phones can read."""
MAX_PARTS: Final = 999
_PART: Final = re.compile(
    r"SRC1/([1-9][0-9]{0,2})/([1-9][0-9]{0,2})/([0-9a-f]{8})/([A-Za-z0-9_-]+)"
)


class PartsError(ValueError):
    """The parts do not make a whole file; the message says what to scan again."""


def to_parts(data: bytes, part_bytes: int = PART_BYTES) -> list[str]:
    """Cut bytes into parts.

    Raises:
        PartsError: there is nothing to cut, or too much.
    """
    pieces = [data[start : start + part_bytes] for start in range(0, len(data), part_bytes)]
    if not 1 <= len(pieces) <= MAX_PARTS:
        raise PartsError(
            f"{len(data)} bytes make {len(pieces)} parts; 1 to {MAX_PARTS} can be sent"
        )
    tag = sha256_hex(data)[:8]
    return [
        f"{PREFIX}/{number}/{len(pieces)}/{tag}/{_encode(piece)}"
        for number, piece in enumerate(pieces, 1)
    ]


def is_parts(text: str) -> bool:
    """Say whether a text looks like parts rather than like a file."""
    return text.lstrip().startswith(PREFIX + "/")


def from_parts(lines: Iterable[str]) -> bytes:
    """Put parts together; empty lines do not matter.

    Raises:
        PartsError: a line is no part, parts of two files are mixed, one is missing, or the result
            is not the file that was cut.
    """
    found: dict[int, bytes] = {}
    wholes: set[tuple[int, str]] = set()
    for place, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        match = _PART.fullmatch(text)
        if match is None:
            raise PartsError(f"line {place} is not a part: scan it again")
        number, total = int(match[1]), int(match[2])
        wholes.add((total, match[3]))
        if len(wholes) > 1:
            raise PartsError(f"line {place} belongs to another file: scan one set only")
        piece = _decode(match[4], place)
        if number > total:
            raise PartsError(f"line {place} says it is part {number} of {total}: scan it again")
        if found.setdefault(number, piece) != piece:
            raise PartsError(f"part {number} is there twice and differs: scan it again")
    if not wholes:
        raise PartsError("there are no parts")
    ((total, tag),) = wholes
    missing = [str(number) for number in range(1, total + 1) if number not in found]
    if missing:
        raise PartsError(f"of {total} parts, these are missing: {', '.join(missing)}")
    data = b"".join(found[number] for number in range(1, total + 1))
    if sha256_hex(data)[:8] != tag:
        raise PartsError("the parts do not make the file they were cut from: scan them again")
    return data


def _encode(piece: bytes) -> str:
    return base64.urlsafe_b64encode(piece).decode().rstrip("=")


def _decode(text: str, place: int) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise PartsError(f"line {place} is not a part: scan it again") from error
