"""The WSGI application, from the environment's settings."""

from portal.app import create_app
from portal.config import load_settings
from portal.wiring import wire_web

application = create_app(wire_web(load_settings()))
