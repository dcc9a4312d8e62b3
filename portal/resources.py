"""The files the portal reads besides its code: templates, static files, migrations, documents.

Invariants: an installed package carries its own copies, put there by `setup.py`; a checkout (an
editable install included) reads the folders at its top, so an edit takes effect at once.
"""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent
_PACKAGED: Final = _PACKAGE / "files"

ROOT: Final = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent
TEMPLATES: Final = ROOT / "templates"
STATIC: Final = ROOT / "static"
MIGRATIONS: Final = ROOT / "migrations"
OPENAPI: Final = ROOT / "docs" / "openapi.json"
GUNICORN_CONFIG: Final = ROOT / "gunicorn.conf.py"
