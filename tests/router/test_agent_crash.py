"""Kill -9 at every write of the agent: the state loads, the chain goes on, nothing is forked."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from licensing.encoding import sha256_hex
from router.lease.identity import KEY_FILE
from router.lease.store import LOCK_FILE, STATE_FILE
from tests.factories.instances import make_code
from tests.router.network import Passing
from tests.router.site import Site
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

CALLS = ("open", "fsync", "replace")
"""The system calls every durable write is made of."""


def killed_at(point: int, act: Callable[[], object]) -> bool:
    """Act in a child that dies before or after its nth system call; True when it died there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            left = iter(range(point - 1))

            def reach() -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            def watched(call: Callable[..., Any]) -> Callable[..., Any]:
                def run(*arguments: Any, **named: Any) -> Any:
                    reach()
                    value = call(*arguments, **named)
                    reach()
                    return value

                return run

            for name in CALLS:
                setattr(os, name, watched(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def names(directory: Path) -> set[str]:
    """Return the names in a lease directory."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.asvs("2.3.3")
def test_an_agent_killed_while_it_renews_makes_one_chain(site: Site) -> None:
    site.enroll()
    points = KillPoints(every=4)
    for point in points:
        before = site.state
        points.died = killed_at(point, site.renew)
        after = site.state
        assert after.held() is not None
        if after.lease != before.lease:
            assert after.pending is None, "a lease was installed and its request left open"
        elif after.pending is not None:
            assert before.pending in (None, after.pending)
        envelope = after.envelope()
        assert envelope is not None
        lease = site.renew()
        assert (lease.clone_warning, lease.prev_sha256) == (None, sha256_hex(envelope.payload))
        if after.pending is not None:
            assert lease.request_id == after.pending
        assert names(site.directory) == {KEY_FILE, STATE_FILE, LOCK_FILE}
    assert points.last > 15, "the writes were not reached"
    given, forks = site.portal_holds()
    assert given == list(range(1, len(given) + 1))
    assert forks == 0


@pytest.mark.asvs("2.3.3")
def test_an_agent_killed_while_it_enrolls_makes_one_instance(site: Site, tmp_path: Path) -> None:
    points = KillPoints(every=6)
    for point in points:
        code = make_code(site.transactions, site.license)
        router = replace(site, code=code, directory=tmp_path / f"lease-{point}")
        points.died = killed_at(point, router.enroll)
        if not router.directory.is_dir() or router.state.lease is None:
            lease = router.enroll()
            assert (lease.seq, lease.epoch) == (1, 1)
        assert router.held.seq == 1
        assert router.renew().seq == 2
        assert names(router.directory) == {KEY_FILE, STATE_FILE, LOCK_FILE}
        assert site.instances() == points.walked
    assert points.last > 25, "the writes were not reached"
    assert site.portal_holds() == ([1, 2] * points.walked, 0)


def test_an_agent_killed_between_question_and_answer(site: Site) -> None:
    site.enroll()
    for _ in range(3):
        children: list[int] = []

        def answer_the_dead(passing: Passing, children: list[int] = children) -> Any:
            response = passing.forward()
            os.kill(children[0], signal.SIGKILL)
            return response

        site.network.faults.append(answer_the_dead)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.read(reading, 1)
                site.renew()
            finally:
                os._exit(0)
        children.append(child)
        os.write(writing, b"x")
        _, status = os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
        assert os.WIFSIGNALED(status)
        pending, seq = site.state.pending, site.held.seq
        lease = site.renew()
        assert (lease.request_id, lease.seq, lease.clone_warning) == (pending, seq + 1, None)
    assert site.portal_holds() == ([1, 2, 3, 4], 0)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_state(
    site: Site, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    site.enroll()
    before = site.state

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(Exception, match="No space left on device") as raised:
            site.renew()
    assert raised.type.__name__ == "StateError"
    assert site.state == before
    assert names(site.directory) == {KEY_FILE, STATE_FILE, LOCK_FILE}
    assert site.renew().seq == 2
