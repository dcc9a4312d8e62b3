"""`make totp EMAIL=…`: prints the current code of a second factor, only in development."""

import argparse
import os
import sys

from devtools.people import STAFF_EMAIL, current_code, password_file
from portal.config import BadSetting, Settings, load_settings


def _code(settings: Settings, email: str) -> str:
    if not password_file(settings).exists():
        raise LookupError("this is not a development portal; `make run` creates one")
    return current_code(settings, email)


def main() -> int:
    """Print the code."""
    parser = argparse.ArgumentParser(prog="make totp")
    parser.add_argument("--email", default=STAFF_EMAIL)
    email = parser.parse_args().email or STAFF_EMAIL
    os.environ["PORTAL_DEV"] = "1"
    try:
        print(_code(load_settings(), email))
    except (BadSetting, LookupError) as error:
        print(f"make totp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
