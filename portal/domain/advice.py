"""What people who hold a license are told of its standing: what is so, and what to do.

The page, the checklist and the summary say the same, from here.
"""

from dataclasses import dataclass
from typing import Final, Literal

from portal.domain.standing import LicenseState


@dataclass(frozen=True)
class Advice:
    """What is said first of a license that does not simply serve."""

    title: str
    what: str
    """What this means for routers."""
    todo: str
    """What its holder should do."""
    tone: Literal["bad", "warn", "info"]


INSTALLABLE: Final = frozenset({LicenseState.ISSUED, LicenseState.NOT_YET_VALID})
"""In these states there is something to install; in all others files are for the records."""

ADVICE: Final = {
    LicenseState.REVOKED: Advice(
        "This license was revoked",
        "It was ended for good. Leased routers stop when they next ask for a lease, offline ones"
        " when the revocation bundle reaches them.",
        "Do not install it. Contact us if you did not expect this.",
        "bad",
    ),
    LicenseState.SUPERSEDED: Advice(
        "A newer license has taken the place of this one",
        "The time in which both were good is over. Routers that know of the newer one refuse this"
        " one.",
        "Install the newer license.",
        "warn",
    ),
    LicenseState.SUSPENDED: Advice(
        "This license is on hold",
        "Leased routers stop when they next ask for a lease, offline ones when the revocation"
        " bundle reaches them. Its time runs on.",
        "Do not install it now. Contact us to settle what is open; once the hold is lifted it is"
        " good again.",
        "warn",
    ),
    LicenseState.EXPIRED: Advice(
        "This license has expired",
        "No router serves by it any more.",
        "Renew it, or ask for a new one, and install the new file.",
        "bad",
    ),
    LicenseState.NOT_YET_VALID: Advice(
        "This license is not valid yet",
        "Routers that hold it serve from the moment it becomes valid.",
        "You can install it now.",
        "info",
    ),
}
"""What is said of a license, by its state; of one that is in force nothing has to be said."""
