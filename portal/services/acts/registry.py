"""Every kind of act there is, by its name. Whoever adds a kind adds it here."""

from collections.abc import Mapping
from typing import Final

from portal.services.acts.kinds import Kind
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (SUSPEND, REINSTATE, REVOKE)}
