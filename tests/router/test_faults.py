"""A router on a bad machine: killed under load, a full disk, no place for its state."""

import random
import re
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from licensing.license import Budget
from router.state.store import StateFile
from tests.router.papers import identifier
from tests.router.running import House, house

pytestmark = pytest.mark.slow

BUDGET = identifier("bud", 1)
TOKENS = 12
"""What the upstream says each answer took."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[House]:
    """An installation with a large budget, not started."""
    with house(tmp_path) as built:
        built.install(budget=Budget(budget_id=BUDGET, tokens_total=10**9))
        yield built


def test_killed_again_and_again_under_load_no_token_is_served_uncounted(served: House) -> None:
    order = random.Random(20_26)
    counted = [0]
    for _ in range(6):
        served.start()
        used = served.status().json["usage"]["budget_tokens_used"]
        assert used >= counted[-1], "a counter went back"
        assert used >= TOKENS * len(served.upstream.bodies), "tokens were served uncounted"
        counted.append(used)
        process = served.process
        assert process is not None

        def load(_: int) -> int:
            answered = 0
            try:
                while True:
                    answered += served.chat().status == 200
            except (OSError, ValueError):
                return answered

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(load, number) for number in range(8)]
            for _ in range(order.randrange(3, 40)):
                assert served.upstream.arrived.acquire(timeout=10)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            answered = sum(each.result() for each in running)
        assert answered <= len(served.upstream.bodies)
        served.process = None
        _, rest = process.communicate()
        assert b"Traceback" not in rest
    served.start()
    used = served.status().json["usage"]["budget_tokens_used"]
    assert used >= TOKENS * len(served.upstream.bodies)
    assert served.status().json["usage"]["budget_tokens_reserved"] == 0
    assert served.chat().status == 200


def test_a_full_disk_blocks_new_spending_and_harms_nothing(served: House) -> None:
    served.start()
    assert served.chat().status == 200
    process = served.process
    assert process is not None
    held = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, held[1]))
    refused = [served.chat() for _ in range(3)]
    assert [(each.status, each.code) for each in refused] == [(503, "state-not-durable")] * 3
    assert len(served.upstream.bodies) == 1, "nothing is spent that cannot be counted"
    assert served.ask("GET", "/readyz").status == 200
    assert any("cannot be written" in each for each in served.status().json["warnings"])
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, held)
    assert served.chat().status == 200, "it goes on by itself"
    served.stop()
    served.start()
    assert served.status().json["usage"]["budget_tokens_used"] == 2 * TOKENS


def test_two_routers_on_one_state(served: House, tmp_path: Path) -> None:
    served.start()
    status, said = served.fail_to_start()
    assert status == 1
    assert "another process uses the license state" in said
    assert "state_path of its own" in said
    assert "Traceback" not in said
    assert served.chat().status == 200


@pytest.mark.parametrize("place", ["a file", "everybody's", "read-only"])
def test_a_place_that_cannot_hold_the_state(served: House, tmp_path: Path, place: str) -> None:
    directory = tmp_path / "state"
    if place == "a file":
        directory.write_text("not a directory")
        expected = "cannot use the license state"
    elif place == "everybody's":
        directory.mkdir()
        directory.chmod(0o777)
        expected = "everybody can write in .*: chmod 700"
    else:
        # A directory nobody may write in, the superuser neither.
        served.settings["state_path"] = "/proc/self/license-state.json"
        expected = "cannot use the license state /proc/self/license-state.json"
    status, said = served.fail_to_start()
    assert status == 1
    assert re.search(expected, said), said
    assert "Traceback" not in said


def test_a_state_that_comes_from_another_machine_needs_its_key(served: House) -> None:
    served.start()
    assert served.chat().status == 200
    served.stop()
    served.state_file.with_name("license-state.json.key").unlink()
    served.start()
    served.wait_for("license-state-invalid")
    assert "Restore a trusted backup" in served.said
    assert served.chat().code == "license-state-invalid"


def test_only_their_owner_can_read_what_the_router_keeps(served: House) -> None:
    served.start()
    assert served.chat().status == 200
    directory = served.state_file.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_terminated_under_load_it_finishes_what_runs(served: House) -> None:
    served.start()
    served.upstream.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(served.chat) for _ in range(4)]
        for _ in running:
            assert served.upstream.arrived.acquire(timeout=10)
        assert served.process is not None
        served.process.terminate()
        threading.Timer(0.2, served.upstream.gate.set).start()
        assert [each.result().status for each in running] == [200] * 4
    served.end()
    file = StateFile(served.state_file)
    budgets = file.open().budgets
    file.close()
    assert budgets.tallies[BUDGET].used == 4 * TOKENS
