"""A portal in memory, for router authors: it speaks the lease protocol and can fail on cue.

    python -m devtools.simulator --directory /tmp/simulator

Every key is a published test key, which distributions refuse.
"""

from devtools.simulator.faults import FAULTS, Faults
from devtools.simulator.portal import Answer, Simulator

__all__ = ["FAULTS", "Answer", "Faults", "Simulator"]
