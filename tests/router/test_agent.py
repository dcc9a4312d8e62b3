"""The agent against a real server behind a bad network: no lease is lost, doubled or forged."""

import json
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from werkzeug.wrappers import Response

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.lease import Lease
from licensing.license import Budget, Limits
from portal.db.instances import Instance
from portal.db.leases import Lease as LeaseRow
from portal.services.keys import sign_payload
from router.commands.cli import main
from router.errors import Refused, RouterError, StateError, Unreachable, UsageError
from router.lease.identity import KEY_FILE
from router.lease.store import LOCK_FILE, STATE_FILE, LeaseStore
from router.network.agent import Enrollment, enroll, renew
from router.network.fetch import MAX_ANSWER_BYTES, Answer, HttpFetch, require_answer
from tests.factories.instances import make_code
from tests.fakes import START, FakeClock, MemorySigner
from tests.router.certificates import make_certificate
from tests.router.network import Fault, in_pieces, instead, lost_answer, lost_request, serve
from tests.router.papers import identifier
from tests.router.site import COMMAND, Site, Ticks, request_id_of

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
PROBLEM = "application/problem+json"


def problem(status: int, code: str, **headers: str) -> Fault:
    """Refuse with a problem document."""
    body = {"status": status, "code": code, "detail": "No.", "next_action": "Nothing.", "title": ""}
    return instead(json.dumps(body), status, PROBLEM, **headers)


def test_enrolling_and_renewing_make_one_chain(site: Site, clock: FakeClock) -> None:
    first = site.enroll()
    assert (first.epoch, first.seq, first.prev_sha256) == (1, 1, "0" * 64)
    for seq in range(2, 8):
        envelope = site.state.envelope()
        assert envelope is not None
        clock.advance(hours=1)
        lease = site.renew()
        assert (lease.seq, lease.prev_sha256) == (seq, sha256_hex(envelope.payload))
        assert lease == site.held
        assert site.state.pending is None
    assert site.portal_holds() == ([1, 2, 3, 4, 5, 6, 7], 0)
    assert len({request_id_of(exchange.body) for exchange in site.network.seen}) == 7


def test_only_its_owner_can_read_the_lease_directory(site: Site) -> None:
    site.enroll()
    site.renew()
    assert stat.S_IMODE(site.directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.directory.iterdir()}
    assert modes == {KEY_FILE: 0o600, STATE_FILE: 0o600, LOCK_FILE: 0o600}


@pytest.mark.parametrize("fault", [lost_request, lost_answer])
def test_an_enrollment_whose_answer_is_lost_is_asked_again(
    site: Site, clock: FakeClock, fault: Fault
) -> None:
    for _ in range(3):
        site.network.faults.append(fault)
        with pytest.raises(Unreachable):
            site.enroll()
        assert site.state.lease is None
        assert site.state.pending is not None
        clock.advance(hours=1)
    lease = site.enroll()
    assert lease.seq == 1
    assert len({request_id_of(exchange.body) for exchange in site.network.seen}) == 1
    answers = {exchange.answer for exchange in site.network.seen if exchange.status}
    assert len(answers) == 1, "two answers to one request"
    assert json.loads(answers.pop())["lease"] == json.loads(site.state.lease or "")
    assert (site.instances(), *site.portal_holds()) == (1, [1], 0)


@pytest.mark.parametrize("fault", [lost_request, lost_answer])
def test_an_enrollment_whose_answer_is_lost_ends_well_with_a_new_code_too(
    site: Site, clock: FakeClock, fault: Fault
) -> None:
    site.network.faults.append(fault)
    with pytest.raises(Unreachable):
        site.enroll()
    # By now the first code is over.
    clock.advance(hours=25)
    later = replace(site, code=make_code(site.transactions, site.license))
    assert later.enroll().seq == 1
    assert site.renew().seq == 2
    assert (site.instances(), *site.portal_holds()) == (1, [1, 2], 0)


@pytest.mark.parametrize("fault", [lost_request, lost_answer])
def test_a_renewal_whose_answer_is_lost_is_asked_again(
    site: Site, clock: FakeClock, fault: Fault
) -> None:
    site.enroll()
    before = site.state.lease
    del site.network.seen[:]
    for _ in range(3):
        site.network.faults.append(fault)
        with pytest.raises(Unreachable):
            site.renew()
        assert site.state.lease == before
        clock.advance(hours=1)
    lease = site.renew()
    assert (lease.seq, lease.clone_warning) == (2, None)
    assert len({request_id_of(exchange.body) for exchange in site.network.seen}) == 1
    answers = {exchange.answer for exchange in site.network.seen if exchange.status}
    assert answers == {(site.state.lease or "").encode()}
    assert site.renew().seq == 3
    assert site.portal_holds() == ([1, 2, 3], 0)


def test_an_answer_in_pieces_is_read_to_its_end(site: Site) -> None:
    site.network.faults.append(in_pieces)
    site.enroll()
    site.network.faults.append(in_pieces)
    assert site.renew().seq == 2


def test_a_portal_that_went_back_in_time_is_shown_the_lease(site: Site, clock: FakeClock) -> None:
    site.enroll()
    with site.transactions.reading(COMMAND) as context:
        row = context.session.query(Instance).one()
        backup = {column.name: getattr(row, column.name) for column in Instance.__table__.columns}
    for _ in range(3):
        clock.advance(hours=1)
        site.renew()
    with site.transactions.writing(COMMAND) as context:
        context.session.query(LeaseRow).filter(LeaseRow.seq > 1).delete()
        context.session.query(Instance).update(backup)
    del site.network.seen[:]
    before = site.state.envelope()
    assert before is not None
    lease = site.renew()
    assert (lease.epoch, lease.seq, lease.clone_warning) == (1, 5, None)
    assert lease.prev_sha256 == sha256_hex(before.payload)
    first, second = site.network.seen
    assert (first.status, second.status) == (409, 200)
    assert request_id_of(first.body) == request_id_of(second.body)
    sent = json.loads(second.body)["prev_lease"]
    assert Envelope.from_object(sent).payload == before.payload
    assert site.renew().seq == 6


def test_a_request_id_that_can_never_be_answered_is_given_up(site: Site) -> None:
    site.enroll()
    site.network.faults.append(lost_answer)
    with pytest.raises(Unreachable):
        site.renew()
    stuck = site.state.pending
    with site.transactions.writing(COMMAND) as context:
        context.session.query(LeaseRow).filter(LeaseRow.seq == 2).update({"envelope": None})
    lease = site.renew()
    assert lease.request_id != stuck
    assert (lease.seq, lease.clone_warning) == (3, True)
    assert site.held == lease


REDIRECTED_TO = "http://127.0.0.1:9/elsewhere"
HARMLESS: dict[str, tuple[Fault, type[RouterError]]] = {
    "a hotel's page": (instead("<html>Welcome</html>", 200, "text/html"), Unreachable),
    "a page that forbids": (instead("<html>403</html>", 403, "text/html"), Unreachable),
    "a page that is not found": (instead("<html>404</html>", 404, "text/html"), Unreachable),
    "a page said to be JSON": (instead("<html>", 200, "application/json"), Unreachable),
    "JSON that is no lease": (instead('{"status":"ok"}', 200, "application/json"), Unreachable),
    "a list": (instead("[]", 200, "application/json"), Unreachable),
    "nothing": (instead("", 200, "application/json"), Unreachable),
    "too much": (instead(b" " * (MAX_ANSWER_BYTES * 4), 200, "application/json"), Unreachable),
    "another status": (instead("{}", 202, "application/json"), Unreachable),
    "moved": (instead("", 301, "text/html", Location=REDIRECTED_TO), Unreachable),
    "found": (instead("", 302, "text/html", Location=REDIRECTED_TO), Unreachable),
    "see other": (instead("", 303, "text/html", Location=REDIRECTED_TO), Unreachable),
    "temporary": (instead("", 307, "text/html", Location=REDIRECTED_TO), Unreachable),
    "permanent": (instead("", 308, "text/html", Location=REDIRECTED_TO), Unreachable),
    "an error": (instead("<html>500</html>", 500, "text/html"), Unreachable),
    "unavailable": (problem(503, "unavailable", Retry_After="60"), Unreachable),
    "too many": (problem(429, "rate-limited", Retry_After="60"), Refused),
    "license mismatch": (problem(403, "license-mismatch"), Refused),
    "exhausted": (problem(403, "instances-exhausted"), Refused),
    "an unheard-of refusal": (problem(403, "revoked"), Refused),
    "unknown instance": (problem(401, "unknown-instance"), Refused),
    "suspected clone": (problem(409, "clone-suspected"), Refused),
    "wrong audience": (problem(422, "wrong-audience"), Refused),
    "a problem that is none": (instead("{}", 403, PROBLEM), Unreachable),
    "a problem too deep": (instead("[" * 60_000, 403, PROBLEM), Unreachable),
    "a problem beyond numbers": (
        instead('{"code":"a","detail":"b","next_action":"c","status":1e999}', 403, PROBLEM),
        Unreachable,
    ),
}


def test_no_answer_but_a_lease_changes_the_lease(site: Site) -> None:
    site.enroll()
    for seq, (name, (fault, error)) in enumerate(HARMLESS.items(), start=2):
        before, asked = site.state.lease, len(site.network.seen)
        site.network.faults.append(fault)
        with pytest.raises(RouterError) as raised:
            site.renew()
        assert type(raised.value) is error, name
        assert site.state.lease == before, name
        pending = site.state.pending
        assert pending is not None, name
        assert len(site.network.seen) == asked + 1, f"{name}: followed, or asked again"
        lease = site.renew()
        assert (lease.seq, lease.request_id, lease.clone_warning) == (seq, pending, None), name
    assert site.portal_holds()[1] == 0


def test_no_answer_but_a_lease_spoils_an_enrollment(site: Site) -> None:
    for name, (fault, error) in HARMLESS.items():
        site.network.faults.append(fault)
        with pytest.raises(RouterError) as raised:
            site.enroll()
        assert type(raised.value) is error, name
        assert site.state.lease is None, name
    assert site.enroll().seq == 1
    assert (site.instances(), *site.portal_holds()) == (1, [1], 0)


def test_a_portal_that_is_gone_changes_nothing(site: Site) -> None:
    site.enroll()
    before = site.state.lease
    fetch = HttpFetch("http://127.0.0.1:9")
    with site.store.locked() as store, pytest.raises(Unreachable, match="does not answer"):
        renew(store, site.grounds(), fetch)
    assert site.state.lease == before
    assert site.renew().seq == 2


def signer_of(site: Site, role: str) -> MemorySigner:
    """Return the portal's own key of a role."""
    (keyid,) = [key.keyid for key in site.trust.keyset.keys if key.role == role]
    made: dict[str, MemorySigner] = site.transactions.ports.signers.made  # type: ignore[attr-defined]
    return made[f"memory:{keyid}"]


def altered(site: Site, role: str = "lease", **changes: Any) -> Fault:
    """Answer with the right lease, changed and signed again by the portal's own key."""

    def alter(passing: Any) -> Any:
        response = passing.forward()
        lease = Lease.parse(Envelope.parse(response.get_data()).payload)
        forged = msgspec.structs.replace(lease, **changes)
        envelope = sign_payload(forged.to_bytes(), Lease.PAYLOAD_TYPE, (signer_of(site, role),))
        response.set_data(envelope.to_bytes())
        return response

    return alter


NOT_INSTALLED: dict[str, tuple[dict[str, Any], str]] = {
    "another instance's": ({"instance_keyid": "a" * 64}, "wrong-instance"),
    "another deployment's": ({"deployment_id": identifier("dep", 9)}, "lease-rejected"),
    "the answer to another request": ({"request_id": identifier("req", 9)}, "lease-rejected"),
    "not above the one at hand": ({"seq": 2}, "lease-rejected"),
    "below the one at hand": ({"seq": 1, "prev_sha256": "0" * 64}, "lease-rejected"),
    "not a continuation": ({"prev_sha256": "a" * 64}, "lease-rejected"),
    "longer than its license": ({"grace_until_at": 2**40}, "lease-rejected"),
    "with a feature more": ({"features": ("zero_gravity",)}, "lease-rejected"),
    "with a wider limit": ({"limits": Limits(max_instances=101)}, "lease-rejected"),
    "with what another budget has left": (
        {
            "budget": Budget(
                budget_id=identifier("bud", 1),
                tokens_total=1,
                carry_over_from=identifier("bud", 2),
            )
        },
        "lease-rejected",
    ),
    "for another product": ({"product": "other"}, "wrong-product"),
    "signed by another role": ({"role": "license"}, "untrusted-key"),
}


@pytest.mark.parametrize("name", NOT_INSTALLED)
def test_a_lease_that_does_not_fit_is_not_installed(site: Site, name: str) -> None:
    changes, code = NOT_INSTALLED[name]
    site.enroll()
    site.renew()
    before = site.state.lease
    site.network.faults.append(altered(site, **changes))
    with pytest.raises((LicensingError, RouterError)) as raised:
        site.renew()
    assert raised.value.code == code  # type: ignore[attr-defined]
    assert site.state.lease == before
    lease = site.renew()
    assert (lease.seq, lease.clone_warning) == (3, None)
    assert site.portal_holds() == ([1, 2, 3], 0)


def test_a_lease_of_the_future_counts_only_as_a_fresh_answer(site: Site) -> None:
    """What was asked for just now tells the time; what may have lain somewhere does not."""
    ticks = Ticks()
    grounds = replace(site.grounds(), clock=ticks)
    site.enroll()
    future = int(START.timestamp()) + 301

    def renewed() -> Lease:
        with site.store.locked() as store:
            return renew(store, grounds, HttpFetch(site.network.url))

    site.network.faults.append(lost_request)
    with pytest.raises(Unreachable):
        renewed()
    ticks.seconds += 61
    before = site.state
    site.network.faults.append(altered(site, issued_at=future))
    with pytest.raises(LicensingError) as raised:
        renewed()
    assert raised.value.code == "not-yet-valid"
    assert site.state == before
    assert renewed().seq == 2
    assert site.state.failures == 1, "the answer was too late to tell the time: ask again"
    assert site.state.pending is None
    site.network.faults.append(altered(site, issued_at=future))
    assert renewed().issued_at == future
    assert site.state.failures == 0
    assert site.portal_holds() == ([1, 2, 3], 0)


def test_a_replayed_lease_is_not_installed(site: Site) -> None:
    site.enroll()
    site.renew()
    old = site.network.seen[-1].answer
    site.renew()
    before = site.state.lease
    site.network.faults.append(instead(old, 200, "application/json"))
    with pytest.raises(RouterError, match="not installed"):
        site.renew()
    assert site.state.lease == before


def test_a_strangers_lease_is_not_installed(site: Site) -> None:
    site.enroll()

    def forge(passing: Any) -> Any:
        response = passing.forward()
        payload = Envelope.parse(response.get_data()).payload
        stranger = MemorySigner(b"a stranger")
        response.set_data(sign_payload(payload, Lease.PAYLOAD_TYPE, (stranger,)).to_bytes())
        return response

    site.network.faults.append(forge)
    with pytest.raises(LicensingError) as raised:
        site.renew()
    assert raised.value.code == "untrusted-key"
    assert site.held.seq == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"prev_sha256": "a" * 64, "clone_warning": True},
        {"prev_sha256": "a" * 64, "epoch": 2, "seq": 1},
        {"prev_sha256": "a" * 64, "clone_warning": True, "seq": 9},
    ],
)
def test_a_fork_the_portal_warns_of_is_installed(site: Site, changes: dict[str, Any]) -> None:
    site.enroll()
    site.renew()
    site.network.faults.append(altered(site, **changes))
    lease = site.renew()
    assert site.held == lease
    assert lease.prev_sha256 == "a" * 64


def test_an_enrollment_that_names_another_instance_is_not_installed(site: Site) -> None:
    def rename(passing: Any) -> Any:
        response = passing.forward()
        value = json.loads(response.get_data())
        response.set_data(json.dumps({**value, "instance_id": identifier("ins", 9)}))
        return response

    site.network.faults.append(rename)
    with pytest.raises(Unreachable):
        site.enroll()
    assert site.state.lease is None
    assert site.enroll().seq == 1


def test_an_enrolled_directory_is_not_enrolled_again(site: Site) -> None:
    lease = site.enroll()
    with pytest.raises(StateError, match=lease.instance_id):
        site.enroll()


def test_a_second_process_is_kept_out(site: Site, tmp_path: Path) -> None:
    site.enroll()
    assert site.license.envelope is not None
    license_file = tmp_path / "license.json"
    license_file.write_bytes(site.license.envelope)
    arguments = ["renew", "--state-dir", str(site.directory), "--license", str(license_file)]
    with site.store.locked():
        ended = subprocess.run(
            [str(BIN / "router-license"), *arguments, "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == "state"
    assert error["message"] == f"another process works in {site.directory}; stop it or wait"
    assert site.renew().seq == 2


@pytest.mark.asvs("12.3.1")
@pytest.mark.parametrize(
    "origin",
    [
        "http://licenses.example.com",
        "http://10.0.0.1:8000",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "https://user@example.com",
        "https://example.com/path",
        "ftp://127.0.0.1",
        "//127.0.0.1",
        "",
    ],
)
def test_nothing_is_sent_in_clear_but_to_loopback(origin: str) -> None:
    with pytest.raises(UsageError, match="https"):
        HttpFetch(origin)


@pytest.mark.parametrize(
    "origin",
    ["https://a.example", "https://[::1]:8443", "http://127.0.0.1:8000", "http://localhost:1"],
)
def test_where_requests_may_go(origin: str) -> None:
    assert HttpFetch(origin).origin == origin


def test_a_code_that_is_none_is_never_sent(site: Site) -> None:
    with site.store.locked(create=True) as store, pytest.raises(UsageError, match="code"):
        enroll(store, site.grounds(), Enrollment("too short"), HttpFetch(site.network.url))
    assert site.network.seen == []
    assert site.enroll().seq == 1


def test_a_refused_code_is_followed_by_a_good_one(site: Site) -> None:
    with site.store.locked(create=True) as store, pytest.raises(Refused) as raised:
        enroll(store, site.grounds(), Enrollment("A" * 32), HttpFetch(site.network.url))
    assert raised.value.code == "enrollment-refused"
    assert site.enroll().seq == 1


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "not JSON": lambda state: "{",
    "a list": lambda state: [],
    "no schema": lambda state: {**state, "schema": None},
    "a later schema": lambda state: {**state, "schema": 2},
    "an unknown field": lambda state: {**state, "more": "x"},
    "no secret": lambda state: {key: state[key] for key in state if key != "secret"},
    "a secret that is none": lambda state: {**state, "secret": "xyz"},
    "a number for a lease": lambda state: {**state, "lease": 5},
    "an object for a lease": lambda state: {**state, "lease": {}},
    "a cut lease": lambda state: {**state, "lease": state["lease"][:-9]},
    "a number for an id": lambda state: {**state, "pending": 5},
    "a list for an id": lambda state: {**state, "instance_id": ["ins"]},
    "a lease of another kind": lambda state: {
        **state,
        "lease": state["lease"].replace("lease.v1", "license.v1"),
        "secret": 5,
    },
}


def test_damaged_state_is_said_to_be_damaged(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.enroll()
    path = site.directory / STATE_FILE
    whole = path.read_text()
    for name, damage in DAMAGES.items():
        damaged = damage(json.loads(whole))
        path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        with pytest.raises(StateError):
            site.renew()
        with pytest.raises(SystemExit) as ended:
            main(["status", "--state-dir", str(site.directory), "--json"])
        error = json.loads(capsys.readouterr().out)["error"]
        assert (ended.value.code, error["code"]) == (1, "state"), name
    path.write_text(whole)
    assert site.renew().seq == 2


@pytest.mark.parametrize("spoiled", ["mode", "cut", "missing"])
def test_the_instance_key_is_its_owners_alone(site: Site, spoiled: str) -> None:
    site.enroll()
    key = site.directory / KEY_FILE
    if spoiled == "mode":
        key.chmod(0o640)
    elif spoiled == "cut":
        key.write_bytes(key.read_bytes()[:40])
    else:
        key.unlink()
    with pytest.raises(StateError):
        site.renew()
    assert len(site.network.seen) == 1


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StateError, match="nowhere"),
        LeaseStore(tmp_path / "nowhere").locked(),
    ):
        pass


def test_another_routers_code_makes_another_instance(site: Site, tmp_path: Path) -> None:
    first = site.enroll()
    code = make_code(site.transactions, site.license)
    neighbor = Site(
        site.transactions, site.network, site.license, site.trust, code, tmp_path / "neighbor"
    )
    second = neighbor.enroll()
    assert first.instance_id != second.instance_id
    assert first.instance_keyid != second.instance_keyid
    # A directory that was given the neighbor's lease does not take it for its own.
    site.network.faults.append(
        instead(neighbor.state.lease or "", 200, "application/json"),
    )
    with pytest.raises(LicensingError) as raised:
        site.renew()
    assert raised.value.code == "wrong-instance"
    assert site.held == first


def test_a_body_of_any_bytes_is_no_answer() -> None:
    for body in (b"", b"\xff", b"{" * 9, b'"' * MAX_ANSWER_BYTES, b"x" * (MAX_ANSWER_BYTES + 1)):
        for content_type in (PROBLEM, "text/plain"):
            with pytest.raises(Unreachable):
                require_answer(Answer(403, content_type, body), 200)


@pytest.mark.asvs("12.3.2")
def test_the_portals_certificate_is_checked(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "portal")
    other, _ = make_certificate(tmp_path, "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serve(Response("{}", content_type="application/json"), tls) as network:
        assert HttpFetch(network.url, certificate)("/v1/leases", b"{}").body == b"{}"
        for trusted in (None, other):
            with pytest.raises(Unreachable, match="certificate"):
                HttpFetch(network.url, trusted)("/v1/leases", b"the code")
        elsewhere = network.url.replace("127.0.0.1", "localhost")
        with pytest.raises(Unreachable, match="certificate"):
            HttpFetch(elsewhere, certificate)("/v1/leases", b"the code")
        assert [exchange.body for exchange in network.seen] == [b"{}"]
    with pytest.raises(RouterError, match="CA file"):
        HttpFetch(network.url, key)("/v1/leases", b"{}")
