"""Argon2id: today's parameters, hashes from before, and a bound on how many run at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import monotonic, thread_time

import pytest

from portal.gateways.passwords import Argon2Passwords

PASSWORD = "nobody expects this horse"


def cost(act: Callable[[], object]) -> float:
    """Return the processor time an act takes this thread, in seconds."""
    spent = []
    for _ in range(5):
        started = thread_time()
        act()
        spent.append(thread_time() - started)
    return min(spent)


def cheap(**changes: int) -> Argon2Passwords:
    return Argon2Passwords(**{"memory_kib": 8, "passes": 1, **changes})


@pytest.mark.asvs("11.4.2")
def test_what_production_hashes_with() -> None:
    encoded = Argon2Passwords().hash(PASSWORD)
    kind, version, cost = encoded.split("$")[1:4]
    assert (kind, version, cost) == ("argon2id", "v=19", "m=65536,t=3,p=1")


def test_a_password_opens_its_own_hash_only() -> None:
    passwords = cheap()
    encoded = passwords.hash(PASSWORD)
    assert encoded != passwords.hash(PASSWORD), "the salt was used twice"
    assert passwords.verify(encoded, PASSWORD)
    assert not passwords.verify(encoded, PASSWORD + " ")
    assert not passwords.verify("no hash", PASSWORD)
    assert not passwords.verify("", PASSWORD)


@pytest.mark.asvs("11.4.2")
@pytest.mark.parametrize("changed", [{"memory_kib": 16}, {"passes": 2}, {"lanes": 2}])
def test_a_hash_of_other_parameters_still_opens_and_is_due_for_a_new_one(
    changed: dict[str, int],
) -> None:
    before, today = cheap(memory_kib=64), cheap(**{"memory_kib": 64, **changed})
    encoded = before.hash(PASSWORD)
    assert today.verify(encoded, PASSWORD)
    assert today.needs_rehash(encoded)
    assert not today.needs_rehash(today.hash(PASSWORD))


@pytest.mark.asvs("6.3.8")
def test_an_unknown_person_costs_the_time_of_a_known_one() -> None:
    passwords = Argon2Passwords(memory_kib=16 * 1024, passes=4)
    encoded = passwords.hash(PASSWORD)

    known = cost(lambda: passwords.verify(encoded, "wrong"))
    unknown = cost(lambda: passwords.verify_nothing("wrong"))
    assert 0.5 < unknown / known < 2


@pytest.mark.asvs("11.4.2")
def test_no_more_than_allowed_are_computed_at_once() -> None:
    passwords = Argon2Passwords(memory_kib=16 * 1024, passes=4, at_once=1)
    alone = cost(lambda: passwords.hash(PASSWORD))

    def end_of_one(_: int) -> float:
        passwords.hash(PASSWORD)
        return monotonic()

    with ThreadPoolExecutor(4) as threads:
        ends = sorted(threads.map(end_of_one, range(4)))
    # One after the other, each takes at least its own time; together they would end together.
    assert all(after - before > alone / 2 for before, after in pairwise(ends))
