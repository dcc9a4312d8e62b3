"""`python -m router` is `router-license`."""

from router.commands.cli import main

if __name__ == "__main__":
    main()
