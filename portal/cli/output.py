"""What commands print: data on stdout, messages on stderr, and with `--json` one object.

Exit codes: 0 done; 1 internal or I/O; 2 usage; 4 refused; 7 cannot decide now.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, NoReturn

import click
from sqlalchemy.exc import OperationalError, ProgrammingError

from licensing.errors import LicensingError
from portal.config import BadSetting
from portal.domain.errors import Invalid, PortalError, Unavailable
from portal.domain.ports import SealBroken, SignerUnavailable

INTERNAL: Final = 1
USAGE: Final = 2
REFUSED: Final = 4
UNDECIDED: Final = 7


class SpeakingGroup(click.Group):
    """The `portal` command; with `--json` it reports usage errors as JSON, too."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> NoReturn:
        """Run the command and exit with its code."""
        given = sys.argv[1:] if args is None else list(args)
        try:
            ended = super().main(given, *rest, **{**settings, "standalone_mode": False})
        except click.ClickException as error:
            if "--json" in given:
                _echo_error("usage", error.format_message())
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERNAL)
        sys.exit(ended if isinstance(ended, int) else 0)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a command, print what it returns and map its errors to exit codes.

    The command returns a mapping of JSON values. Without `--json`, each is printed as a line
    `name: value`.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @wraps(command)
    def run(*args: Any, as_json: bool, **options: Any) -> None:
        try:
            result = command(*args, **options)
        except BadSetting as error:
            fail(as_json, USAGE, "bad-setting", str(error))
        except Invalid as error:
            fail(as_json, USAGE, error.code, error.message)
        except Unavailable as error:
            fail(as_json, UNDECIDED, error.code, error.message)
        except SignerUnavailable as error:
            fail(as_json, UNDECIDED, "signer-unavailable", str(error))
        except PortalError as error:
            fail(as_json, REFUSED, error.code, error.message)
        except SealBroken as error:
            fail(
                as_json,
                UNDECIDED,
                "seal-broken",
                f"{error}; is PORTAL_DATA_KEY_FILE the right one?",
            )
        except LicensingError as error:
            fail(as_json, UNDECIDED, error.code, error.detail)
        except (OperationalError, ProgrammingError) as error:
            text = str(error.orig).strip().splitlines()[0]
            fail(
                as_json,
                INTERNAL,
                "database",
                f"{text}; does the database exist, and has `portal init` been run?",
            )
        except OSError as error:
            fail(as_json, INTERNAL, "io", f"{error.filename or ''}: {error.strerror}")
        if result is not None:
            show(as_json, result)

    return run


def show(as_json: bool, result: dict[str, Any]) -> None:
    """Print a result."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    for name, value in result.items():
        if isinstance(value, list):
            for item in value:
                click.echo(
                    "  ".join(str(part) for part in item.values())
                    if isinstance(item, dict)
                    else f"{name}: {item}"
                )
        elif value is not None:
            click.echo(f"{name}: {value}")


def fail(as_json: bool, exit_code: int, code: str, message: str) -> NoReturn:
    """Print an error and exit."""
    if as_json:
        _echo_error(code, message)
    click.echo(f"portal: {message}", err=True)
    sys.exit(exit_code)


def _echo_error(code: str, message: str) -> None:
    click.echo(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False))
