"""Identifiers: a prefix that names the noun and 128 random bits in Crockford base32.

The shape is fixed by the signed documents, `[a-z]{2,4}_[0-7][0-9A-HJKMNP-TV-Z]{25}`.
"""

from typing import Final

from licensing.encoding import crockford
from portal.domain.ports import Randomness

ACCOUNT: Final = "cus"
ACT: Final = "act"
BUDGET: Final = "bud"
CODE: Final = "enc"
DEPLOYMENT: Final = "dep"
EMAIL: Final = "eml"
EMAIL_TOKEN: Final = "tkn"
ENTITLEMENT: Final = "ent"
HOLD: Final = "hld"
INSTANCE: Final = "ins"
LEASE: Final = "lea"
LICENSE: Final = "lic"
MEMBER: Final = "mem"
MESSAGE: Final = "msg"
PERSON: Final = "per"
RECOVERY_CODE: Final = "rec"
REQUEST: Final = "rqs"
SIGN_IN: Final = "sgn"
TERMS_OF_USE_ACCEPTANCE: Final = "acc"


def new_id(prefix: str, randomness: Randomness) -> str:
    """Make a fresh identifier such as `lic_3M…`."""
    return f"{prefix}_{crockford(randomness.token(16))}"
