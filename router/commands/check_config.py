"""`router-license check-config`."""

import argparse
from typing import Any

from router.commands.report import say, show
from router.config import Config, load_config
from router.documents.trust import is_distribution
from router.errors import OK
from router.yaml_file import ConfigError


def run_check_config(options: argparse.Namespace) -> int:
    """Check a router's configuration; exit 0 if it can be used, 2 with a list of all problems."""
    try:
        config = load_config(options.config, distribution=is_distribution())
    except ConfigError as error:
        problems = [
            {"line": problem.line, "path": problem.path, "message": problem.message}
            for problem in error.problems
        ]
        if options.json:
            show({"result": "invalid", "problems": problems}, as_json=True)
        for problem in error.problems:
            say(f"{options.config}: {problem}")
        return error.exit
    show({"result": "valid", **_described(config)}, as_json=options.json)
    return OK


def _described(config: Config) -> dict[str, Any]:
    """Return the facts of a configuration without hashes, safe to print."""
    license_ = config.server.license
    return {
        "listen": f"{config.server.host}:{config.server.port}",
        "upstream": config.server.upstream or "none",
        "license_path": str(license_.path),
        "state_path": str(license_.state_path),
        "recheck_interval_s": license_.recheck_interval_s,
        "grace_period_s": license_.grace_period_s,
        "revocation_mode": license_.revocation.mode,
        "callers": [caller.name for caller in config.callers],
        "models": [model.id for model in config.models],
        "admin_users": [name for name, _ in config.admin.users],
    }
