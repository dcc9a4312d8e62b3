"""The only place of the router that reads the wall clock."""

import time


def unix_now() -> int:
    """Return the current Unix time in whole seconds."""
    return int(time.time())
