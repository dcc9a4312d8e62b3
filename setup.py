"""Puts the files the portal reads into its package; `pyproject.toml` says everything else.

`portal/resources.py` finds them there. An editable install copies nothing.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = (
    "docs/openapi.json",
    "gunicorn.conf.py",
    "migrations",
    "static",
    "templates",
    "wsgi.py",
)
TARGET = "portal/files"


def resources() -> list[str]:
    """Return the files, by their paths in the checkout."""
    found = [path for name in SOURCES for path in (Path(name), *Path(name).rglob("*"))]
    return sorted(
        path.as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts
    )


class BuildWithResources(build_py):
    """Builds the packages, with the portal's files inside."""

    def run(self) -> None:
        """Build; what an earlier build left behind does not stay."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / TARGET
        shutil.rmtree(target, ignore_errors=True)
        for name in resources():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(name, str(target / name))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return what is built."""
        built = super().get_outputs(include_bytecode)
        return [*built, *(str(Path(self.build_lib) / TARGET / name) for name in resources())]

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs for this."""
        return [*super().get_source_files(), *resources()]


setup(cmdclass={"build_py": BuildWithResources})
