"""Every kind of act there is, by its name. Whoever adds a kind adds it here."""

from collections.abc import Mapping
from typing import Final

from portal.services.acts.amend import AMEND
from portal.services.acts.end import END
from portal.services.acts.keys import COMPROMISE_KEY, RETIRE_KEY, ROTATE_KEY
from portal.services.acts.kinds import Kind
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE
from portal.services.acts.replace_base import REPLACE_BASE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.acts.top_up import TOP_UP

_ALL: Final = (
    RENEW,
    AMEND,
    TOP_UP,
    REPLACE,
    REPLACE_BASE,
    SUSPEND,
    REINSTATE,
    END,
    REVOKE,
    ROTATE_KEY,
    RETIRE_KEY,
    COMPROMISE_KEY,
)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _ALL}
