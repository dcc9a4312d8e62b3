"""Identifiers: a prefix that names the noun and 128 random bits in Crockford base32.

The shape is fixed by the signed documents, `[a-z]{2,4}_[0-7][0-9A-HJKMNP-TV-Z]{25}`.
"""

import re
from typing import Final

from licensing.encoding import crockford
from portal.domain.ports import Randomness

ACCOUNT: Final = "cus"
AUDIT_EXPORT: Final = "aex"
BUDGET: Final = "bud"
CODE: Final = "enc"
DEPLOYMENT: Final = "dep"
EMAIL: Final = "eml"
ENTITLEMENT: Final = "ent"
INSTANCE: Final = "ins"
LEASE: Final = "lea"
LICENSE: Final = "lic"
MEMBER: Final = "mem"
MESSAGE: Final = "msg"
PERSON: Final = "per"
REQUEST: Final = "rqs"
SIGN_IN: Final = "sgn"
EMAIL_TOKEN: Final = "tkn"

_SHAPE: Final = re.compile(r"[a-z]{2,4}_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id(prefix: str, randomness: Randomness) -> str:
    """Make a fresh identifier such as `lic_3M…`."""
    return f"{prefix}_{crockford(randomness.token(16))}"


def is_id(text: str, prefix: str) -> bool:
    """Say whether `text` is a well-formed identifier of this noun."""
    return _SHAPE.fullmatch(text) is not None and text.startswith(f"{prefix}_")
