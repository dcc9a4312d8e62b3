"""Where tests keep what need not outlive them: in memory, if this machine has room for it there.

SQLite files and PostgreSQL clusters are written and copied thousands of times in a run of the
tests. On a disk that is most of the time they take.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
ENOUGH_BYTES: Final = 3 * 2**30


def scratch_directory() -> Path:
    """Return a directory in memory that has room and lets programs run, else the usual one."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK):
        found = os.statvfs(MEMORY)
        runs_programs = not found.f_flag & os.ST_NOEXEC
        if runs_programs and found.f_bavail * found.f_frsize >= ENOUGH_BYTES:
            return MEMORY
    return Path(tempfile.gettempdir())
