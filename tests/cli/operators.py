"""Somebody who runs `portal` in this process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from portal.cli.main import portal
from portal.cli.wired import Wirings
from portal.config import Settings
from portal.wiring import Wiring, wire_command, wire_worker


@dataclass
class Operator:
    """Somebody who runs `portal` in this process, with settings of their own."""

    data_dir: Path
    environment: dict[str, str | None]
    opened: list[Wiring]

    def run(self, *arguments: str | Path, **changed: str) -> Result:
        """Run a command to its end."""

        def wire(settings: Settings) -> Wiring:
            self.opened.append(wire_command(settings))
            return self.opened[-1]

        return CliRunner(env={**self.environment, **changed}).invoke(
            portal, [str(each) for each in arguments], obj=Wirings(wire, wire_worker)
        )

    def ask(self, *arguments: str | Path, **changed: str) -> dict[str, Any]:
        """Run a command that must succeed; return the object it prints."""
        result = self.run(*arguments, "--json", **changed)
        assert result.exit_code == 0, result.output
        return one_object(result)

    def refused(self, status: int, code: str, *arguments: str | Path, **changed: str) -> str:
        """Run a command that must fail, with `--json` and without; return its message."""
        result = self.run(*arguments, "--json", **changed)
        error = one_object(result)["error"]
        assert (result.exit_code, error["code"]) == (status, code), result.output
        assert set(error) == {"code", "message"}
        plain = self.run(*arguments, **changed)
        assert (plain.exit_code, plain.stdout) == (status, "")
        assert error["message"] in plain.stderr
        return str(error["message"])


def one_object(result: Result) -> dict[str, Any]:
    """Return the one object on standard output."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value
