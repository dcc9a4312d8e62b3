"""`make totp EMAIL=…`: prints the current code of a second factor, only in development."""

import argparse
import os
import sys

from devtools.people import STAFF_EMAIL, current_code
from portal.config import BadSetting, load_settings


def main() -> int:
    """Print the code."""
    parser = argparse.ArgumentParser(prog="make totp")
    parser.add_argument("--email", default=STAFF_EMAIL)
    email = parser.parse_args().email or STAFF_EMAIL
    os.environ["PORTAL_DEV"] = "1"
    try:
        print(current_code(load_settings(), email))
    except (BadSetting, LookupError) as error:
        print(f"make totp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
