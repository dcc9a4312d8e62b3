"""The stateful vectors: `python -m devtools.sequences` writes `router/vectors/sequences.json`.

Each sequence begins with a state, and says step by step what comes before a router and what it must
do. Expected results are stated by hand. Every document is signed by published test keys.

Invariants: the same bytes in each run.
"""

import json
from pathlib import Path
from typing import Final

from devtools.sequences.bounds import accepts_within, bounded
from devtools.sequences.compromise import compromises
from devtools.sequences.stateful import accepts, budgets, decides, moments

FILE: Final = Path(__file__).parents[2] / "router" / "vectors" / "sequences.json"


def content() -> bytes:
    """Return the file."""
    sequences = [
        *compromises(),
        *decides(),
        *bounded(),
        *accepts(),
        *accepts_within(),
        *moments(),
        *budgets(),
    ]
    value = {"schema": 1, "sequences": sequences}
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
