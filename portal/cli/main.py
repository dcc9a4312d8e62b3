"""The `portal` command: its groups, and the commands that run things."""

import logging.config
import os
import secrets
import signal
import sys
from threading import Event
from typing import Any

import click

from portal.cli.accounts import account, deployment, staff
from portal.cli.acts import act_
from portal.cli.custody import custody
from portal.cli.doctor import doctor
from portal.cli.keys import audit, bundle, keys
from portal.cli.licenses import enrollment_code, entitlement, instance, license_
from portal.cli.output import SpeakingGroup, json_option
from portal.cli.wired import COMMAND, Wirings, wired
from portal.config import BadSetting, Settings, load_settings, parse_surfaces
from portal.db import migrate
from portal.db.session import Database, make_engine
from portal.domain.errors import Conflict
from portal.gateways.logs import logging_config
from portal.resources import GUNICORN_CONFIG, ROOT
from portal.services.bundles import publish_bundle
from portal.services.context import SYSTEM
from portal.services.keys import init_keys, refuse_misplaced_keys
from portal.services.seals import init_seal


@click.group(cls=SpeakingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def portal() -> None:
    """Issue, lease and keep track of Smart Router licenses."""


for command in (
    account,
    act_,
    audit,
    bundle,
    custody,
    deployment,
    doctor,
    enrollment_code,
    entitlement,
    instance,
    keys,
    license_,
    staff,
):
    portal.add_command(command)


@portal.command()
@click.option(
    "--dev", is_flag=True, help="Create development keys and secrets in the data directory."
)
@json_option
def init(dev: bool) -> dict[str, Any]:
    """Create whatever is missing: database, secrets, keys, first keyset and bundle."""
    settings = load_settings()
    made = make_secrets(settings, dev=dev)
    prepare_database(settings)
    wiring = wired()
    with wiring.transactions.writing(COMMAND) as context:
        keyset = init_keys(context, wiring.signers)
        init_seal(context, wiring.custody)
    publish_bundle(wiring.transactions, COMMAND, only_if_due=True)
    return {
        "data_dir": str(settings.data_dir),
        "schema": migrate.current(wiring.database.engine),
        "keyset_version": keyset.version,
        "made": made,
    }


def make_secrets(settings: Settings, *, dev: bool) -> list[str]:
    """Create the directories and any missing secret files; return the paths of those files.

    Outside development, a secret file that a setting names is never created: a typing mistake in
    its path would give the database a second data key. It must exist before anything is created.

    Raises:
        BadSetting: a secret cannot be used or created.
    """
    if not dev:
        settings.read_named_secrets()
    for directory in (settings.data_dir, settings.keys_dir, settings.data_dir / "secrets"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = []
    for setting, path in settings.secret_files.items():
        if path.exists():
            continue
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise BadSetting(f"{setting}: cannot create {path} ({error.strerror})") from error
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        made.append(str(path))
    settings.read_secrets("web")
    return made


def prepare_database(settings: Settings) -> None:
    """Migrate the database to this code's schema."""
    database = Database(make_engine(settings.database_url))
    try:
        migrate.upgrade(database.engine)
    finally:
        database.dispose()


@portal.group()
def db() -> None:
    """Migrate the database, or check its schema."""


@db.command("upgrade")
@json_option
def db_upgrade() -> dict[str, Any]:
    """Run the missing migrations."""
    settings = load_settings()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare_database(settings)
    return {"schema": migrate.head()}


@db.command("check")
@json_option
def db_check() -> dict[str, Any]:
    """Check whether the database has this code's schema."""
    database = Database(make_engine(load_settings().database_url))
    try:
        current = migrate.current(database.engine)
    finally:
        database.dispose()
    if current != migrate.head():
        raise Conflict(
            f"The database is at {current}, the code at {migrate.head()}: run `portal db upgrade`."
        )
    return {"schema": current}


@portal.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the port in PORTAL_ORIGIN.")
@click.option("--surfaces", help="Serve only these surfaces, for example public,account.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@json_option
def serve(host: str, port: int | None, surfaces: str | None, workers: int) -> None:
    """Serve HTTP with gunicorn until stopped."""
    if port is not None and "PORTAL_ORIGIN" not in os.environ:
        os.environ.setdefault("PORT", str(port))
    settings = load_settings()
    # gunicorn's processes need these. Report a mistake here, once, before they start.
    settings.read_secrets("web")
    if surfaces is not None:
        os.environ["PORTAL_SURFACES"] = ",".join(sorted(parse_surfaces(surfaces)))
    # Keep the working directory: settings may name files relative to it.
    bind = f"[{host}]" if ":" in host else host
    arguments = ["--config", str(GUNICORN_CONFIG), "--workers", str(workers)]
    arguments += ["--pythonpath", str(ROOT)]
    arguments += ["--bind", f"{bind}:{port or settings.port}", "wsgi:application"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments])  # noqa: S606


@portal.command()
@click.option("--once", is_flag=True, help="Run what is due now, then exit.")
@json_option
def worker(once: bool) -> dict[str, Any] | None:
    """Run jobs: issue licenses, send mail, seal the audit trail, publish bundles."""
    settings = load_settings()
    settings.read_secrets("worker")
    logging.captureWarnings(True)
    logging.config.dictConfig(logging_config(settings.log_level, plain=settings.development))
    wirings: Wirings = click.get_current_context().obj
    wired, runner = wirings.worker(settings)
    with wired.transactions.reading(SYSTEM) as context:
        refuse_misplaced_keys(context)
    if once:
        ran = 0
        while now := runner.run_once():
            ran += now
        return {"jobs": ran}
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    runner.run_forever(stop)
    return None
