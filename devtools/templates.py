"""Compiles every template, so that a mistake is found even in one that nobody has opened."""

import sys
from datetime import UTC, datetime

from flask import Flask
from jinja2 import TemplateSyntaxError

from portal.resources import STATIC, TEMPLATES
from portal.web.templating import init_templating


def main() -> int:
    """Compile all templates; return 1 if one has a mistake."""
    app = Flask("templates")
    init_templating(app, now=lambda: datetime.now(UTC), templates=TEMPLATES, static=STATIC)
    environment = app.jinja_env
    names = [name for name in environment.list_templates() if not name.endswith(("svg", "LICENSE"))]
    broken = 0
    for name in names:
        try:
            environment.compile((TEMPLATES / name).read_text(), name)
        except TemplateSyntaxError as error:
            broken += 1
            print(f"templates/{name}:{error.lineno}: {error.message}", file=sys.stderr)
    print(f"{len(names)} templates compile" if not broken else f"{broken} templates do not compile")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
