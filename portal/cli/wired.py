"""What commands need from the wiring, opened only by the commands that use it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Final, Protocol

import click

from portal.config import Settings, load_settings
from portal.db.session import Database
from portal.domain.errors import Invalid
from portal.domain.ports import KeyMaker, SealMaker
from portal.services.context import Actor, Transactions

COMMAND: Final = Actor("command")


class Wired(Protocol):
    """The parts of the wiring that commands use."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        ...

    @property
    def database(self) -> Database:
        """The database."""
        ...

    @property
    def transactions(self) -> Transactions:
        """Opens units of work."""
        ...

    @property
    def signers(self) -> KeyMaker:
        """Creates keys."""
        ...

    @property
    def custody(self) -> SealMaker:
        """Creates the seal key."""
        ...


class Runner(Protocol):
    """The part of the worker that the command runs."""

    def run_once(self) -> int:
        """Run what is due now and return the number of jobs run."""
        ...

    def run_forever(self, stop: Event) -> None:
        """Work until `stop` is set."""
        ...


@dataclass(frozen=True)
class Wirings:
    """How to open the wiring of the command and of the worker."""

    command: Callable[[Settings], Wired]
    worker: Callable[[Settings], tuple[Wired, Runner]]


def wired() -> Wired:
    """Open the command's wiring.

    Raises:
        BadSetting: a setting is wrong.
    """
    wirings: Wirings = click.get_current_context().obj
    return wirings.command(load_settings())


def transactions() -> Transactions:
    """Open the command's units of work.

    Raises:
        BadSetting: a setting is wrong.
    """
    return wired().transactions


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> int:
    """Read a duration such as `90s`, `15m`, `72h` or `30d`, in seconds.

    Raises:
        Invalid: the text is not a duration.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise Invalid(
            f"{text!r} is not a duration; write it like 90s, 15m, 72h or 30d.", field="term"
        )
    return int(match[1]) * _UNITS[match[2]]


def parse_limits(pairs: tuple[str, ...]) -> dict[str, int]:
    """Read limits such as `max_instances=3`.

    Raises:
        Invalid: a pair is malformed, or a name is given twice.
    """
    limits: dict[str, int] = {}
    for pair in pairs:
        match = re.fullmatch(r"([a-z_]+)=([0-9]{1,16})", pair)
        if match is None or match[1] in limits:
            raise Invalid(
                f"{pair!r} is not a limit; write NAME=NUMBER, each name once.", field="limit"
            )
        limits[match[1]] = int(match[2])
    return limits
