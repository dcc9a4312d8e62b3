"""Acts: how far one has come, and how long one waits for its second person.

Source: "Acts" of the life of a license.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Final

LAPSES_AFTER: Final = timedelta(hours=72)
"""How long an act waits for a second person."""
REVOKING_ALONE: Final = 9
"""Revocations that one person may make alone within `REVOKING_SPAN`; the next needs a second."""
REVOKING_SPAN: Final = timedelta(hours=24)


class ActState(StrEnum):
    """How far an act has come."""

    PENDING = "pending"
    """Waits for a second person."""
    RETURNED = "returned"
    """What it was shown to do changed meanwhile: its first person looks again."""
    DONE = "done"
    DECLINED = "declined"
    LAPSED = "lapsed"
