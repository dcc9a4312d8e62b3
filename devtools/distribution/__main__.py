"""`python -m devtools.distribution --keyset FILE`: see `devtools.distribution`."""

import argparse
import subprocess
import sys
from pathlib import Path

from devtools.distribution import ROOT, DistributionError, build, commit_time, download_wheels

WHEELS = ROOT / ".venv" / "router-wheels"


def main() -> int:
    """Build a distribution, or only download the wheels it needs."""
    parser = argparse.ArgumentParser(prog="make router-release", description=__doc__)
    parser.add_argument("--keyset", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "router")
    parser.add_argument("--wheels", type=Path, default=WHEELS)
    parser.add_argument("--only-download", action="store_true", help="download the wheels and stop")
    options = parser.parse_args()
    try:
        download_wheels(options.wheels)
        if options.only_download:
            return 0
        if options.keyset is None:
            print("name the keyset: make router-release KEYSET=keyset.json", file=sys.stderr)
            return 2
        for made in build(options.keyset, options.output, options.wheels, commit_time()):
            print(made)
    except (DistributionError, OSError, subprocess.CalledProcessError) as error:
        print(f"make router-release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
