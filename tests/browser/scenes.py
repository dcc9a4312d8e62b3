"""Accounts in the states pages must show well: everything there, nothing there, refused, over."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select

from portal.db.accounts import Account, Member
from portal.db.licenses import Hold, License
from portal.db.people import Person
from portal.domain.catalog import DAY_S, fill_terms
from portal.domain.identifiers import MEMBER, new_id
from portal.domain.requests import Audience
from portal.domain.standing import HoldCause
from portal.domain.terms import Mode
from portal.services import requests
from portal.services.accounts import create_account
from portal.services.acts.replace import REPLACE
from portal.services.context import Actor
from tests.browser.site import Site
from tests.factories.accounts import PASSWORD, make_customer, make_deployment, make_staff
from tests.factories.acts import do, newest
from tests.factories.instances import make_code
from tests.factories.licenses import issue, make_entitlement
from tests.factories.requests import ask_for_pilot

COMMAND = Actor("command")
LONG_NAME = "Northwind Traders International Logistics and Warehousing (Göteborg, test bench 4)"


@dataclass
class Scene:
    """One account with something of everything."""

    email: str
    account: Account
    pages: dict[str, str] = field(default_factory=dict)
    """Paths of pages for its members, by the name of their picture."""
    staff_pages: dict[str, str] = field(default_factory=dict)


def make_member(site: Site, account: Account, email: str, role: str | None) -> None:
    """Make a confirmed person, a member of this account alone; without a role, of none."""
    with site.transactions.writing(COMMAND) as context:
        own = create_account(context, name="Elsewhere", owner_email=email, owner_name="Vera Viewer")
        person = context.session.scalar(
            select(Person).join(Member).where(Member.account_id == own.id)
        )
        assert person is not None
        person.password_hash = site.transactions.ports.passwords.hash(PASSWORD)
        person.email_confirmed_at = context.at
        context.session.execute(delete(Member).where(Member.person_id == person.id))
        if role is not None:
            member = Member(
                id=new_id(MEMBER, context.ports.randomness),
                account_id=account.id,
                person_id=person.id,
                role=role,
                created_at=context.at,
            )
            context.session.add(member)


def make_scene(site: Site, email: str) -> Scene:
    """Make an account with licenses, routers and requests in many states."""
    account, owner = make_customer(site.transactions, email, "Northwind Traders")
    staff = make_staff(
        site.transactions, f"robin-{account.id[-4:].lower()}@vendor.test", "approver"
    )
    scene = Scene(email, account, staff_pages={"account": f"/staff/accounts/{account.id}"})
    make_licenses(site, account, scene)
    make_requests(site, owner, staff, scene)
    return scene


def make_licenses(site: Site, account: Account, scene: Scene) -> None:
    """Make a license in each state, and routers."""
    transactions = site.transactions

    def granted(name: str, **terms: Any) -> License:
        deployment = make_deployment(transactions, account, name)
        return issue(transactions, make_entitlement(transactions, deployment, **terms))

    offline = granted("Stockholm", fingerprints=["sha256:4f6a9c3e1d27-rack7"])
    over = granted("Lab")
    held = granted("Malmö")
    revoked = granted("Kiruna")
    leased = granted(LONG_NAME, mode="lease", sku="pilot-30d")
    replaced = granted("Umeå")
    do(transactions, REPLACE, replaced.id, None)
    newer = newest(transactions, replaced.deployment_id)
    superseded = granted("Luleå")
    with transactions.writing(COMMAND) as context:
        hold = Hold(
            id=new_id("hld", context.ports.randomness),
            entitlement_id=held.entitlement_id,
            cause=HoldCause.STAFF,
            reason="Waiting for a signed agreement",
            opened_at=context.at,
        )
        context.session.add(hold)
        context.session.get_one(License, revoked.id).revoked_at = context.at
        context.session.get_one(License, over.id).expires_at = context.at
        gone = context.session.get_one(License, superseded.id)
        gone.superseded_at, gone.superseded_by = context.at, newer.id
    for name, row in {
        "license": offline,
        "license-expired": over,
        "license-suspended": held,
        "license-revoked": revoked,
        "license-leased": leased,
        "license-replaced": replaced,
        "license-superseded": superseded,
        "license-newer": newer,
    }.items():
        scene.pages[name] = f"/account/licenses/{row.id}"
    scene.pages["license-replace"] = f"/account/licenses/{offline.id}/replace"
    scene.pages["renewal-new"] = f"/account/requests/new/renewal?license={leased.id}"
    scene.pages["deployment-history"] = f"/account/deployments/{replaced.deployment_id}"
    scene.pages["deployment"] = f"/account/deployments/{offline.deployment_id}"
    scene.pages["deployment-leased"] = f"/account/deployments/{leased.deployment_id}"
    scene.staff_pages["license"] = f"/staff/licenses/{offline.id}"
    scene.staff_pages["license-leased"] = f"/staff/licenses/{leased.id}"
    enroll_routers(site, leased, scene)


def enroll_routers(site: Site, license_: License, scene: Scene) -> None:
    """Enroll two routers by the installed command, and retire the second."""
    code = make_code(site.transactions, license_, uses=3)
    folder = site.shell.directory / license_.id
    folder.mkdir()
    paths = {name: folder / name for name in ("license.json", "keyset.json", "code.txt")}
    assert license_.envelope is not None
    paths["license.json"].write_bytes(license_.envelope)
    paths["code.txt"].write_text(code)
    site.shell.portal("keys", "keyset", "--out", paths["keyset.json"])
    made = []
    for label in ("rack 7, primary", "rack 9"):
        facts = site.shell.router(
            "enroll",
            *("--license", paths["license.json"], "--keyset", paths["keyset.json"]),
            *("--code-file", paths["code.txt"], "--state-dir", folder / label, "--label", label),
        )
        made.append(facts["instance_id"])
        if label == "rack 7, primary":
            scene.pages["courier"] = "/account/courier"
            scene.pages["courier-answer"] = f"/account/courier/{made[0]}/{facts['lease_id']}"
    site.shell.portal("instance", "retire", made[1], "--reason", "The host is gone")
    scene.pages["instance"] = f"/account/instances/{made[0]}"
    scene.pages["instance-retired"] = f"/account/instances/{made[1]}"


def make_requests(site: Site, owner: Person, staff: Person, scene: Scene) -> None:
    """Make a request in each state, with questions and internal notes."""
    transactions = site.transactions
    made = {
        name: ask_for_pilot(
            transactions,
            owner.email,
            deployment_name=f"Bench {number}",
            goals="Half the cost at the same quality.\n\nNo prompt leaves our network.",
            contacts="Kim Larsen, kim@northwind.example",
        )
        for number, name in enumerate(("open", "granted", "declined", "withdrawn"), 1)
    }
    with transactions.writing(COMMAND) as context:
        requests.take_request(context, made["open"], staff.id)
        terms = fill_terms(
            "pilot-30d",
            mode=Mode.LEASE,
            term_s=14 * DAY_S,
            limits={"tokens_per_window": 1_000_000, "max_instances": 5},
            features=("routing", "usage_reporting"),
        )
        note = "Two weeks suit the volume you named. Leases let you add hosts as you go."
        requests.approve_request(
            context, made["granted"], staff_id=staff.id, terms=terms, note=note
        )
        why = "Pilots need a company address.\n\nWrite to us from one and we look again."
        requests.decline_request(context, made["declined"], staff_id=staff.id, note=why)
        withdrawn = requests.staff_request(context, made["withdrawn"])
        requests.withdraw_request(context, withdrawn)
    for author, audience, text in (
        (staff, "customer", "Which upstreams will you compare, and do you need PII filtering?"),
        (owner, "customer", "Two of them, both in our own halls. Yes, from the first day."),
        (staff, "staff", "Spoke to sales: they want an answer before Friday."),
    ):
        with transactions.writing(COMMAND) as context:
            asked = requests.staff_request(context, made["open"])
            requests.post_message(
                context, asked, author_id=author.id, audience=Audience(audience), text=text
            )
    for name, request_id in made.items():
        scene.pages[f"request-{name}"] = f"/account/requests/{request_id}"
        scene.staff_pages[f"request-{name}"] = f"/staff/requests/{request_id}"
    scene.pages["request-sent"] = f"/account/requests/{made['open']}?sent=1"
