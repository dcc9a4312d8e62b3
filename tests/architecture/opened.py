"""Answer requests as a web process does, then print which files were opened on the way.

Run as a program, with the environment of a web process: `python -m tests.architecture.opened`. The
hook is in place before the application is imported, and nothing is replaced by anything else.
"""

import json
import os
import sys
from typing import Any

opened: set[str] = set()


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Remember what is opened, by whatever means of Python."""
    if event == "open" and isinstance(arguments[0], str | bytes):
        # Path.resolve() would follow links.
        opened.add(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100


def main() -> None:
    """Ask for every page anybody may ask for, and send each machine route a bad request."""
    from tests.web.visitor import Browser
    from wsgi import application

    client = Browser(application)
    origin = os.environ["PORTAL_ORIGIN"]
    statuses: dict[str, int] = {}
    rules = [
        rule
        for app in (application.pages, application.machine)
        for rule in app.url_map.iter_rules()
    ]
    for rule in rules:
        methods = {"GET", "POST"} & (rule.methods or set())
        path = rule.rule if not rule.arguments else rule.rule.split("<")[0] + "1"
        for method in sorted(methods):
            answer = client.open(path, method=method, base_url=origin, json={}, buffered=True)
            statuses[f"{method} {path}"] = answer.status_code
    sys.stdout.write(json.dumps({"opened": sorted(opened), "statuses": statuses}))


if __name__ == "__main__":
    sys.addaudithook(note)
    main()
