"""The courier's pages: a router without a network, from its request's file to the answer's."""

import io
import json
from pathlib import Path

import pytest

from licensing.courier import to_parts
from licensing.encoding import sha256_hex
from licensing.verify import KeysetTrust
from portal.db.accounts import Account
from portal.db.audit import AuditRow
from portal.db.instances import EnrollmentCode, Fork, Instance
from portal.db.leases import Lease
from portal.db.licenses import License
from portal.services.context import Actor, Transactions
from portal.services.keys import current_keyset, unix
from router.lease.store import LeaseStore
from router.network.agent import Enrollment, Grounds, read_grounds
from router.network.courier import install_answer, read_answer, write_request
from tests.factories.accounts import make_deployment
from tests.factories.instances import make_code
from tests.factories.licenses import issue, make_entitlement, make_lease_license
from tests.fakes import MemorySigners
from tests.web.visitor import Page, Visitor

COMMAND = Actor("command")


class Vault:
    """A router's lease directory, without a network."""

    def __init__(self, transactions: Transactions, license_: License, directory: Path) -> None:
        self.transactions = transactions
        self.license = license_
        self.store = LeaseStore(directory)

    def grounds(self) -> Grounds:
        """What the router stands on."""
        with self.transactions.reading(COMMAND) as context:
            trust = KeysetTrust(current_keyset(context).document)
            at = unix(context.at)
        assert self.license.envelope is not None
        return read_grounds(self.license.envelope, trust, at, None)

    def request(self, code: str | None = None) -> bytes:
        """Write a request."""
        with self.store.locked(create=True) as store:
            enrollment = None if code is None else Enrollment(code)
            return write_request(store, self.grounds(), enrollment)

    def install(self, answer: bytes) -> int:
        """Install an answer; return the lease's number."""
        with self.transactions.reading(COMMAND) as context:
            held = current_keyset(context)
        with self.store.locked() as store:
            return install_answer(store, self.grounds(), held, read_answer(answer))[0].seq


@pytest.fixture
def vault(customer: Visitor, transactions: Transactions, tmp_path: Path) -> Vault:
    """A site of the customer's, not enrolled."""
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    deployment = make_deployment(transactions, account)
    entitlement = make_entitlement(transactions, deployment, sku="pilot-30d", mode="lease")
    return Vault(transactions, issue(transactions, entitlement), tmp_path / "lease")


def bring(customer: Visitor, request: bytes, status: int = 200) -> Page:
    """Paste a request into the form."""
    page = customer.get("/account/courier")
    return customer.send(page, {"text": request.decode()}, action="/account/courier", status=status)


def carried(customer: Visitor, page: Page) -> bytes:
    """Download the answer a page offers."""
    (link,) = [href for href in page.links if href.endswith("/answer.json")]
    answer = customer.client.get(link)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="answer.json"'
    assert answer.headers["Cache-Control"] == "no-store"
    return bytes(answer.data)


def test_a_router_enrolls_and_renews_by_files(
    customer: Visitor, vault: Vault, transactions: Transactions
) -> None:
    request = vault.request(make_code(transactions, vault.license))
    page = bring(customer, request)
    assert "The answer is ready" in page.text
    assert vault.install(carried(customer, page)) == 1
    page = bring(customer, vault.request())
    assert "answered before" not in page.text
    answer = carried(customer, page)
    assert set(json.loads(answer)) >= {"instance_id", "lease", "license", "keyset"}
    assert vault.install(answer) == 2
    with transactions.reading(COMMAND) as context:
        noted = (
            context.session.query(AuditRow).filter_by(action="instance.courier-answered").count()
        )
        assert noted == 2
        assert context.session.query(Fork).count() == 0


def test_the_same_file_again_gets_the_same_answer(
    customer: Visitor, vault: Vault, transactions: Transactions
) -> None:
    vault.install(
        carried(customer, bring(customer, vault.request(make_code(transactions, vault.license))))
    )
    request = vault.request()
    first = carried(customer, bring(customer, request))
    page = bring(customer, request)
    assert "This request was answered before" in page.text
    assert sha256_hex(carried(customer, page)) == sha256_hex(first)
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Lease).count() == 2


def test_codes_are_read_like_a_file_and_shown_for_the_answer(
    customer: Visitor, vault: Vault, transactions: Transactions
) -> None:
    request = vault.request(make_code(transactions, vault.license))
    page = bring(customer, "\n".join(to_parts(request, 300)).encode())
    plain = page.html.count("<svg")
    assert customer.get(f"{page.path}?codes=1").html.count("<svg") >= plain + 5
    assert vault.install(carried(customer, page)) == 1


def test_a_file_is_uploaded(customer: Visitor, vault: Vault, transactions: Transactions) -> None:
    request = vault.request(make_code(transactions, vault.license))
    page = customer.get("/account/courier")
    form = page.form("/account/courier")
    sent = {
        "csrf_token": form.fields["csrf_token"][0],
        "file": (io.BytesIO(request), "request.json"),
        "text": "",
    }
    answer = customer.client.post("/account/courier", data=sent, content_type="multipart/form-data")
    assert answer.status_code == 302


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Choose the file"),
        ("hello", "not written by router-license courier request"),
        ("{}", "not written by router-license courier request"),
        ("SRC1/1/2/00000000/AAAA", "The QR codes are incomplete"),
    ],
)
def test_what_is_no_request_is_refused_in_words(
    customer: Visitor, vault: Vault, text: str, said: str
) -> None:
    page = bring(customer, text.encode(), 400)
    assert said in page.text


def test_another_accounts_router_is_not_answered_and_its_code_keeps_its_use(
    customer: Visitor, vault: Vault, transactions: Transactions, tmp_path: Path
) -> None:
    theirs = make_lease_license(transactions)
    stranger = Vault(transactions, theirs, tmp_path / "stranger")
    page = bring(customer, stranger.request(make_code(transactions, theirs)), 400)
    assert "another account" in page.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Instance).count() == 0
        assert context.session.query(EnrollmentCode).one().uses == 0


def test_a_code_that_is_over_is_said(
    customer: Visitor, vault: Vault, transactions: Transactions
) -> None:
    page = bring(customer, vault.request("A" * 32), 400)
    assert "The enrollment code is unknown." in page.text
    assert "Create a new enrollment code" in page.text


def test_an_answer_is_shown_to_its_account_alone(
    customer: Visitor, vault: Vault, transactions: Transactions
) -> None:
    assert customer.client.get("/account/courier/ins_x/req_x").status_code == 404
    assert customer.client.get("/account/courier/ins_x/req_x/answer.json").status_code == 404


def test_while_no_lease_can_be_signed_the_file_is_to_be_brought_again(
    customer: Visitor, vault: Vault, transactions: Transactions, signers: MemorySigners
) -> None:
    request = vault.request(make_code(transactions, vault.license))
    signers.absent = {"lease"}
    answer = customer.client.post(
        "/account/courier", data={"csrf_token": customer.token("/account/courier"), "text": request}
    )
    assert answer.status_code == 503
    assert "The portal cannot answer this request right now. Upload it again later." in answer.text
    signers.absent = set()
    assert vault.install(carried(customer, bring(customer, request))) == 1
