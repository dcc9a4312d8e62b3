"""`python -m portal` and the installed `portal` command."""

from portal.cli.main import portal
from portal.cli.wired import Wirings
from portal.wiring import wire_command, wire_worker


def main() -> None:
    """Run the command."""
    portal(obj=Wirings(wire_command, wire_worker), prog_name="portal")


if __name__ == "__main__":
    main()
