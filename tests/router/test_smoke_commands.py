"""The smoke commands of the vendor's reference, typed as they are printed there, in a shell.

Source: "Smoke Commands" of the vendor's reference.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.router.running import PASSWORD, TOKEN, House, house

pytestmark = pytest.mark.slow

READY = 'curl -fsS "$ROUTER_BASE_URL/readyz"'
STATUS = """curl -i -u admin:replace-with-password \\
"$ROUTER_BASE_URL/admin/license/status"
"""
MODELS = """curl -i -H "Authorization: Bearer $ROUTER_TOKEN" \\
"$ROUTER_BASE_URL/v1/models"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[House]:
    """A router that runs."""
    with house(tmp_path) as built:
        yield built


def shell(served: House, command: str, password: str = PASSWORD) -> tuple[int, str]:
    """Type a command, with the operator's own password in place of the printed one."""
    done = subprocess.run(
        ["sh", "-c", command.replace("replace-with-password", password)],
        capture_output=True,
        timeout=20,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "ROUTER_BASE_URL": f"http://127.0.0.1:{served.port}",
            "ROUTER_TOKEN": TOKEN,
        },
    )
    return done.returncode, done.stdout.decode().replace("\r\n", "\n")


def test_they_work_as_printed(served: House) -> None:
    served.install()
    served.start()
    assert shell(served, READY) == (0, '{"status": "ready"}')
    status, shown = shell(served, STATUS)
    assert status == 0
    assert shown.startswith("HTTP/1.1 200 ")
    assert '"status": "valid"' in shown
    status, shown = shell(served, MODELS)
    assert status == 0
    assert shown.startswith("HTTP/1.1 200 ")
    assert '"id": "general"' in shown


def test_they_tell_what_is_wrong(served: House) -> None:
    served.start()
    assert shell(served, READY)[0] == 22, "curl fails where the router is not ready"
    assert "license-missing" in shell(served, STATUS)[1]
    shown = shell(served, MODELS)[1]
    assert shown.startswith("HTTP/1.1 503 ")
    assert "license-missing" in shown
    assert shell(served, STATUS, password="wrong")[1].startswith("HTTP/1.1 401 ")
