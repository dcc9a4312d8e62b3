"""The state file: what it keeps, and what it refuses, each refusal with its way back."""

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licensing.license import Budget, License
from licensing.revocation import NO_BUNDLE, RevocationBundle
from router.errors import StateError
from router.state.budgets import Terms
from router.state.store import (
    Anchor,
    State,
    StateFile,
    StateInUse,
    StateInvalid,
)
from tests.router.papers import AT, DAY_S, ISSUED_AT, Vendor, entry, identifier
from tests.spread import examples

DEPLOYMENT = identifier("dep", 1)
LICENSE = identifier("lic", 1)
ISSUER = "metrum.ai"
TERMS = Terms(
    DEPLOYMENT,
    Budget(budget_id=identifier("bud", 1), tokens_total=1000),
    tokens_per_window=100,
    window_s=3600,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is."""
    return tmp_path / "state" / "license-state.json"


def key_of(path: Path) -> Path:
    """Return the key's path."""
    return path.with_name(path.name + ".key")


def written(path: Path) -> State:
    """Write a state that has something of everything, and return it."""
    with StateFile(path) as file:
        state = full(file.open())
        file.write(state)
    return state


def full(state: State) -> State:
    """Return the state after a life with everything in it."""
    bundle = revocations(AT, entry("suspended"))
    state = state.anchored(Anchor(boot_id="b" * 36, boottime=12, now=AT))
    state = state.license_valid(Vendor().license(), AT).grace_begun(AT + 5, "malformed-envelope")
    state = state.serving(TERMS, 3, AT).keyset_seen(ISSUER, 4)
    state = state.bundle_seen(ISSUER, NO_BUNDLE.seen(bundle, "a" * 64, LICENSE))
    state = state.budget_serves(PERIODIC, identifier("bud", 7), AT)
    budgets = state.budgets.reserve("r1", TERMS, 10, AT).reserve("r2", TERMS, 5, AT)
    return msgspec.structs.replace(state, budgets=budgets.settle("r1", 7, AT))


def revocations(version: int, *entries: Any, issuer: str = ISSUER) -> RevocationBundle:
    """Return a bundle."""
    return RevocationBundle(
        typ=RevocationBundle.TYP,
        iss=issuer,
        product="genai-smart-router",
        issued_at=ISSUED_AT,
        version=version,
        expires_at=AT + DAY_S,
        entries=entries,
    )


def licensed(**changes: Any) -> License:
    """Return a license."""
    vendor = Vendor()
    return vendor.verified(vendor.license(**changes)).document


OWN = Budget(budget_id=identifier("bud", 1), tokens_total=100)
PERIODIC = licensed(budget=OWN, ext={"budget_period_s": DAY_S})


def test_a_first_boot_makes_private_files(path: Path) -> None:
    with StateFile(path) as file:
        assert file.open() == State()
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("license-state.json", "license-state.json.key", "license-state.json.lock"), 0o600
    )
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_is_written_is_read_back(path: Path) -> None:
    state = written(path)
    with StateFile(path) as file:
        assert file.open() == state
        assert file.state == state
    assert state.last_valid is not None
    assert state.last_valid.data == Vendor().license()


def test_a_save_keeps_budgets_for_the_journal(path: Path) -> None:
    with StateFile(path) as file:
        state = file.open()
        file.save(state.document_seen(AT))
        with pytest.raises(ValueError, match="journal"):
            file.save(state.serving(TERMS, 1, AT))
        assert file.state.time.doc_floor == AT


def test_a_state_that_could_not_be_loaded_is_not_written(path: Path) -> None:
    with StateFile(path) as file:
        state = file.open()
        before = path.read_bytes()
        for wrong in (state.document_seen(2**60), state.keyset_seen(ISSUER, 1.5)):  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                file.save(wrong)
        assert path.read_bytes() == before


def test_a_second_process_is_kept_out(path: Path) -> None:
    code = f"""
from pathlib import Path
from router.state.store import StateFile, StateInUse
try:
    StateFile(Path({str(path)!r})).open()
except StateInUse as error:
    print(error.message)
"""
    with StateFile(path) as file:
        file.open()
        seen = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "another process uses the license state" in seen.stdout
        with pytest.raises(StateInUse, match="state_path of its own"):
            StateFile(path).open()
    with StateFile(path) as file:
        file.open()


def test_a_refused_state_is_unlocked_again(path: Path) -> None:
    written(path)
    key_of(path).unlink()
    with pytest.raises(StateInvalid):
        StateFile(path).open()
    with path.with_name(path.name + ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def _only_key(path: Path) -> None:
    path.unlink()


def _only_state(path: Path) -> None:
    key_of(path).unlink()


def _another_key(path: Path) -> None:
    key_of(path).write_text("5" * 64)


def _less_used(path: Path) -> None:
    tallies = json.loads(path.read_bytes())["state"]["budgets"]["tallies"]
    assert next(iter(tallies.values()))["used"] == 7
    path.write_bytes(path.read_bytes().replace(b'"used": 7', b'"used": 6'))


def _another_hmac(path: Path) -> None:
    _edit(path, lambda value: value.update(hmac="0" * 64))


def _an_odd_hmac(path: Path) -> None:
    _edit(path, lambda value: value.update(hmac="é"))


def _no_hmac(path: Path) -> None:
    _edit(path, lambda value: value.pop("hmac"))


def _a_later_schema(path: Path) -> None:
    _edit(path, lambda value: value["state"].update(schema=2))


def _a_schema_that_is_true(path: Path) -> None:
    _edit(path, lambda value: value["state"].update(schema=True))


def _no_grace(path: Path) -> None:
    _edit(path, lambda value: value["state"].pop("grace"))


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _twice(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"used"', b'"used": 1, "used"'))


def _an_array(path: Path) -> None:
    path.write_bytes(b"[]")


def _a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _half_a_key(path: Path) -> None:
    key_of(path).write_text("5" * 62)


def _a_readable_key(path: Path) -> None:
    key_of(path).chmod(0o644)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_only_key, "is missing, while its key is here"),
        (_only_state, "without its key"),
        (_another_key, "was altered, or belongs to another key"),
        (_less_used, "was altered"),
        (_another_hmac, "was altered"),
        (_an_odd_hmac, "was altered"),
        (_no_hmac, "not a signed state"),
        (_a_later_schema, "has schema 2, while this router knows 1"),
        (_a_schema_that_is_true, "has schema True"),
        (_no_grace, "was altered"),
        (_half, "cannot be read"),
        (_empty, "cannot be read"),
        (_twice, "same key twice"),
        (_an_array, "not a signed state"),
        (_a_directory, "Is a directory"),
        (_half_a_key, "is no key"),
    ],
)
def test_a_state_that_cannot_be_trusted(
    path: Path, harm: Callable[[Path], None], says: str
) -> None:
    state = written(path)
    backup = {each: each.read_bytes() for each in (path, key_of(path))}
    harm(path)
    with pytest.raises(StateInvalid, match=says) as refused:
        StateFile(path).open()
    assert refused.value.code == "license-state-invalid"
    assert "estore" in refused.value.message
    assert "backup" in refused.value.message
    # The way back that the message names.
    if path.is_dir():
        path.rmdir()
    for each, data in backup.items():
        each.write_bytes(data)
        each.chmod(0o600)
    with StateFile(path) as file:
        assert file.open() == state


def test_a_key_that_others_can_read(path: Path) -> None:
    written(path)
    _a_readable_key(path)
    with pytest.raises(StateInvalid, match="chmod 600"):
        StateFile(path).open()


def test_a_directory_where_everybody_writes(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(StateError, match="chmod 700"):
        StateFile(path).open()


def test_a_journal_alone_is_no_first_boot(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.with_name(path.name + ".journal-7").write_bytes(b"")
    with pytest.raises(StateInvalid, match="while their journal is here"):
        StateFile(path).open()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="File exists"):
        StateFile(tmp_path / "file" / "license-state.json").open()


def test_half_written_files_of_a_crash_are_removed_and_others_are_kept(path: Path) -> None:
    written(path)
    ours, theirs = (
        path.with_name(name)
        for name in (f".{path.name}.ab.partial", ".lease-state.json.ab.partial")
    )
    ours.touch()
    theirs.touch()
    with StateFile(path) as file:
        file.open()
    assert not ours.exists()
    assert theirs.exists()


@settings(max_examples=examples(40, 200))
@given(st.data())
def test_no_changed_byte_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("state") / "license-state.json"
    state = written(path)
    good = path.read_bytes()
    index = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[index]))
    path.write_bytes(good[:index] + bytes([byte]) + good[index + 1 :])
    # White space, or another way to write the same, is no change.
    with StateFile(path) as file, contextlib.suppress(StateInvalid):
        assert file.open() == state


def test_a_full_disk_leaves_the_old_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with StateFile(path) as file:
        state = file.open()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_disk)
            with pytest.raises(StateError, match="No space left"):
                file.save(state.document_seen(AT))
        assert file.state == state
    with StateFile(path) as file:
        assert file.open() == state


# What the state remembers.


def test_floors_only_rise() -> None:
    state = State().document_seen(10).document_seen(5).now_seen(30).now_seen(20)
    assert (state.time.doc_floor, state.time.wall_floor, state.time.floor) == (10, 30, 30)
    state = state.serving(TERMS, 3, 40).serving(TERMS, 2, 35).keyset_seen(ISSUER, 2)
    state = state.keyset_seen(ISSUER, 1)
    assert state.floors(DEPLOYMENT, ISSUER).revision == 3
    assert state.floors(identifier("dep", 2), ISSUER).revision == 0
    assert state.floors(DEPLOYMENT, ISSUER).keyset_version == 2
    assert state.floors(DEPLOYMENT, "other").keyset_version == 0
    assert state.time.wall_floor == 40


def test_nothing_new_is_the_same_state() -> None:
    state = full(State())
    assert state.document_seen(1) is state
    assert state.now_seen(1) is state
    assert state.serving(TERMS, 3, AT) is state
    assert state.grace_begun(AT + 99, "license-missing") is state
    assert state.keyset_seen(ISSUER, 4) is state
    assert state.budget_serves(PERIODIC, identifier("bud", 7), AT + 99) is state


def test_an_anchor_mends_a_clock_that_ran_ahead() -> None:
    state = State().document_seen(AT + 900).now_seen(AT + 9999)
    anchor = Anchor(boot_id="b", boottime=1, now=AT)
    state = state.anchored(anchor)
    assert (state.time.floor, state.time.anchor) == (AT, anchor)


def test_a_license_of_higher_revision_resets_the_wall_floor() -> None:
    state = State().serving(TERMS, 1, AT + 10 * DAY_S)
    assert state.license_verified(licensed(revision=1)).time.wall_floor == AT + 10 * DAY_S
    state = state.license_verified(licensed(revision=2))
    assert state.time.wall_floor == ISSUED_AT
    assert state.floors(DEPLOYMENT, ISSUER).revision == 1
    assert state.serving(TERMS, 2, AT).floors(DEPLOYMENT, ISSUER).revision == 2


def test_grace_goes_on_from_where_it_began() -> None:
    state = State().license_valid(b"license", AT).grace_begun(AT + 1, "license-missing")
    state = state.grace_begun(AT + 50, "malformed-envelope")
    assert state.grace is not None
    assert (state.grace.began_at, state.grace.reason) == (AT + 1, "license-missing")
    state = state.license_valid(b"license", AT + 60)
    assert state.grace is None


def test_period_budgets_are_known_by_deployment() -> None:
    second, third = identifier("bud", 2), identifier("bud", 3)
    state = State().budget_serves(PERIODIC, second, AT).budget_serves(PERIODIC, third, AT)
    assert state.periods == {DEPLOYMENT: {second: ISSUED_AT, third: AT}}
    assert state.budget_serves(PERIODIC, OWN.budget_id, AT + 1) is state
    assert state.budget_serves(licensed(budget=OWN), identifier("bud", 4), AT) is state
    elsewhere = msgspec.structs.replace(PERIODIC, deployment_id=identifier("dep", 2))
    state = state.budget_serves(elsewhere, third, AT + 1)
    assert state.periods[identifier("dep", 2)] == {third: ISSUED_AT}
    assert state.periods[DEPLOYMENT] == {second: ISSUED_AT, third: AT}


def test_each_issuer_has_its_bundle() -> None:
    memory = NO_BUNDLE.seen(revocations(AT, entry("revoked")), "a" * 64, LICENSE)
    state = State().bundle_seen("other", memory)
    assert state.floors(DEPLOYMENT, "other").bundle == memory
    assert state.floors(DEPLOYMENT, ISSUER).bundle == NO_BUNDLE


# A compromised key


GOOD, BAD = "a" * 64, "b" * 64


def test_revisions_that_only_a_compromised_key_vouched_for_are_forgotten() -> None:
    state = State().serving(TERMS, 3, AT, vouched_by=(GOOD,))
    state = state.serving(TERMS, 900, AT, vouched_by=(BAD,))
    assert state.floors(DEPLOYMENT, ISSUER).revision == 900
    after = state.forgetting(frozenset({BAD}))
    assert after.floors(DEPLOYMENT, ISSUER).revision == 3
    assert after.forgetting(frozenset({BAD})) is after
    assert after.forgetting(frozenset({GOOD})).floors(DEPLOYMENT, ISSUER).revision == 0


def test_what_two_keys_vouched_for_stays_while_one_of_them_counts() -> None:
    state = State().serving(TERMS, 3, AT, vouched_by=(GOOD, BAD))
    assert state.forgetting(frozenset({BAD})).floors(DEPLOYMENT, ISSUER).revision == 3
    assert state.forgetting(frozenset({BAD})).budgets == state.budgets


def test_a_state_from_before_keys_were_noted_keeps_its_floors() -> None:
    memory = NO_BUNDLE.seen(bundle_of(7), "c" * 64, LICENSE)
    state = State(revisions={DEPLOYMENT: 5}, bundles={ISSUER: memory})
    assert state.forgetting(frozenset({BAD})) is state


def test_bundles_that_only_a_compromised_key_vouched_for_are_forgotten() -> None:
    genuine = NO_BUNDLE.seen(bundle_of(7), "c" * 64, LICENSE)
    forged = genuine.seen(bundle_of(2**40, entry(LICENSE)), "d" * 64, LICENSE)
    state = State().bundle_seen(ISSUER, genuine, vouched_by=(GOOD,))
    state = state.bundle_seen(ISSUER, forged, vouched_by=(BAD,))
    assert state.floors(DEPLOYMENT, ISSUER).bundle == forged
    assert state.forgetting(frozenset({BAD})).floors(DEPLOYMENT, ISSUER).bundle == genuine
    both = state.forgetting(frozenset({GOOD, BAD}))
    assert both.floors(DEPLOYMENT, ISSUER).bundle == NO_BUNDLE


def test_what_each_key_vouched_for_outlives_the_process(path: Path) -> None:
    with StateFile(path) as file:
        file.open()
        file.write(file.state.serving(TERMS, 3, AT, vouched_by=(GOOD, BAD)))
    with StateFile(path) as file:
        assert file.open().vouched.revisions == {DEPLOYMENT: {GOOD: 3, BAD: 3}}


def bundle_of(version: int, *entries: Any) -> RevocationBundle:
    """Return a bundle of a version; issued then, or when others were."""
    return RevocationBundle(
        typ=RevocationBundle.TYP,
        iss=ISSUER,
        product="genai-smart-router",
        issued_at=min(version, AT),
        version=version,
        expires_at=AT + 35 * DAY_S,
        entries=entries,
    )
