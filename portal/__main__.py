"""`python -m portal` and the installed `portal` command."""

import json
import sys
from typing import Final, NoReturn

try:
    from portal.cli.main import portal
    from portal.cli.wired import Wirings
    from portal.wiring import wire_command, wire_worker
except ModuleNotFoundError as error:
    missing: ModuleNotFoundError | None = error
else:
    missing = None

_OWN: Final = ("licensing", "portal")
_FAILED: Final = 1


def main() -> None:
    """Run the command."""
    if missing is not None:
        _refuse_without_extra(missing)
    portal(obj=Wirings(wire_command, wire_worker), prog_name="portal")


def _refuse_without_extra(error: ModuleNotFoundError) -> NoReturn:
    """Name the extra to install, and leave.

    Raises:
        ModuleNotFoundError: the module is one of ours, so no extra brings it.
    """
    package = (error.name or "").partition(".")[0]
    if package in _OWN:
        raise error
    message = f"{package} is not installed: pip install 'smart-router-licenses[portal]'"
    if "--json" in sys.argv:
        print(json.dumps({"error": {"code": "failed", "message": message}}))  # noqa: T201 (click may be what is missing)
    print(f"portal: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(_FAILED)


if __name__ == "__main__":
    main()
