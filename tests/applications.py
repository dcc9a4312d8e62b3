"""The application as tests open it: often, and each time over another database."""

from functools import cache
from types import CodeType
from typing import Final

from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from portal.app import create_app
from portal.config import Settings
from portal.gateways.mail import JinjaMailTemplates
from portal.services.context import Transactions
from portal.web.portal import WebPortal
from tests.web.visitor import Served

ORIGIN: Final = "http://127.0.0.1:8000"


class CompiledTemplates(BytecodeCache):
    """Keeps compiled templates: otherwise each application compiles every page anew."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._compiled.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._compiled[bucket.key, bucket.checksum] = bucket.code


COMPILED: Final = CompiledTemplates()


def make_app(settings: Settings, transactions: Transactions) -> Served:
    """Make the application over a database."""
    made = create_app(WebPortal(settings, transactions, b"k" * 32, mail_templates()))
    made.pages.jinja_env.bytecode_cache = COMPILED
    return Served(made.pages, made.machine)


@cache
def mail_templates() -> JinjaMailTemplates:
    """Return the real templates of mails, compiled once."""
    return JinjaMailTemplates(ORIGIN)
