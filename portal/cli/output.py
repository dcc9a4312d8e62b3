"""How commands speak: data on stdout, messages on stderr, `--json` one object, errors too.

Exit codes: 0 done; 1 internal or I/O; 2 usage; 4 refused; 7 cannot decide now.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn

import click
from sqlalchemy.exc import OperationalError

from portal.config import BadSetting
from portal.domain.errors import Invalid, PortalError, Unavailable
from portal.domain.ports import SealBroken, SignerUnavailable

INTERNAL: Final = 1
USAGE: Final = 2
REFUSED: Final = 4
UNDECIDED: Final = 7


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--json`, print what it returns, and map its errors to exit codes.

    The command returns a mapping of JSON values. Without `--json` each is a line `name: value`.
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
            fail(as_json, UNDECIDED, "seal-broken", f"{error}; is PORTAL_DATA_KEY_FILE the one?")
        except OperationalError as error:
            text = str(error.orig).strip().splitlines()[0]
            fail(as_json, INTERNAL, "database", f"{text}; is it there, and `portal init` run?")
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
    """Print an error and leave."""
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False))
    click.echo(f"portal: {message}", err=True)
    sys.exit(exit_code)
