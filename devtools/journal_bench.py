"""Measures group commit: the same reservations one after another, and by many callers at once.

    python -m devtools.journal_bench [--records 2000] [--callers 64] [--directory DIR]

Both run in this process, on the same disk, in turn. The ratio is the result; the times themselves
depend on how busy the machine is.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from licensing.license import Budget
from router.state.budgets import Terms
from router.state.journal import Journal
from router.state.store import StateFile

AT = 1_795_000_000
TERMS = Terms(
    "dep_00000000000000000000000001",
    Budget(budget_id="bud_00000000000000000000000001", tokens_total=10**15),
)
ROUNDS = 3


class Syncs:
    """Counts syncs, and does them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, descriptor: int) -> None:
        """Sync a file."""
        self.count += 1
        os.fsync(descriptor)


async def spend(directory: Path, records: int, callers: int) -> tuple[float, int]:
    """Reserve and settle, two records each time; return the seconds and the number of syncs."""
    syncs = Syncs()
    with StateFile(directory / "license-state.json") as file:
        file.open()
        journal = Journal.open(file, AT, sync=syncs)
        await journal.update(lambda state: state.serving(TERMS, 1, AT))
        numbers = iter(range(records // 2))

        async def caller() -> None:
            for number in numbers:
                await journal.reserve(f"req-{number}", TERMS, 1000, AT)
                await journal.settle(f"req-{number}", 700, AT)

        syncs.count, began = 0, time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        took = time.perf_counter() - began
        count = syncs.count
        await journal.close()
    return took, count


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure")
    options = parser.parse_args()
    totals = {1: (0.0, 0), options.callers: (0.0, 0)}
    for _ in range(ROUNDS):
        for callers in totals:
            with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                took, syncs = asyncio.run(spend(Path(directory), options.records, callers))
            totals[callers] = (totals[callers][0] + took, totals[callers][1] + syncs)
    records = ROUNDS * (options.records // 2) * 2
    for callers, (took, syncs) in totals.items():
        print(
            f"{callers:>4} callers: {records} records, {syncs} syncs "
            f"({records / syncs:.1f} records each), {records / took:,.0f} records a second"
        )
    alone, many = totals[1][0], totals[options.callers][0]
    print(f"group commit: {alone / many:.1f} times one sync per record")


if __name__ == "__main__":
    main()
