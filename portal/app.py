"""The portal as one WSGI application: people's pages and machine traffic, told apart by path.

The two share services and nothing else. Both exist in every process, so every process answers
probes and refusals; the settings' surfaces decide which routes they have.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask

from portal.web.machine import create_machine_app
from portal.web.pages import create_pages_app
from portal.web.portal import WebPortal

MACHINE: Final = re.compile(r"/+v1(/|\Z)")
"""The paths of machine traffic. Flask takes several slashes for one."""


@dataclass(frozen=True)
class Application:
    """Both applications of a process behind one callable; paths stay as they are."""

    pages: Flask
    machine: Flask

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a request to the application its path belongs to."""
        app = self.machine if MACHINE.match(environ.get("PATH_INFO", "")) else self.pages
        return app(environ, start_response)


def create_app(web: WebPortal) -> Application:
    """Make the application for the surfaces of its settings."""
    return Application(create_pages_app(web), create_machine_app(web))
