"""Every page of the running portal: accessible in light and dark, light to load, never too wide.

Each is photographed in light, in dark and 360 pixels wide, to var/screenshots/, for looking at.
"""

from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

import pyotp
import pytest
from playwright.sync_api import Browser, CDPSession, Page, ViewportSize
from playwright.sync_api import Error as PlaywrightError
from sqlalchemy import select

from portal.db.emails import Email
from portal.services.acts.revoke import REVOKE
from portal.services.context import Actor
from portal.services.opt_outs import unsubscribe_link
from tests.browser.browsing import (
    COLD_PAGE_BYTES,
    COLD_PAGE_REQUESTS,
    RULES,
    Visit,
    violations,
    visiting,
)
from tests.browser.scenes import LONG_NAME, Scene, make_member, make_scene
from tests.browser.site import Site
from tests.factories.accounts import PASSWORD, make_customer, make_deployment, make_staff
from tests.factories.acts import do, make_annual

pytestmark = pytest.mark.slow

COMMAND = Actor("command")

Prepare = Callable[[Page], Any]
Scheme = Literal["light", "dark"]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
WIDE: Final[ViewportSize] = {"width": 1280, "height": 900}
NARROW: Final[ViewportSize] = {"width": 360, "height": 740}
# What a color scheme changes is contrast alone.
SCHEMES: Final[dict[Scheme, list[str]]] = {"light": RULES, "dark": ["color-contrast"]}
COMPLAINT = "Failed to load resource: the server responded with a status of {}"


@dataclass
class Walk:
    """A walk through the site as one person; what is wrong is noted, and the walk goes on."""

    site: Site
    visit: Visit
    session: CDPSession
    prefix: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str, name: str, status: int = 200, prepare: Prepare | None = None) -> None:
        """Open a page with nothing in the cache, do what `prepare` does, and look at it.

        `status` is what the page in sight was answered with.
        """
        page, visit = self.visit.page, self.visit
        visit.sizes.clear()
        answer = page.goto(self.site.origin + path)
        assert answer is not None
        if len(visit.sizes) > COLD_PAGE_REQUESTS or sum(visit.sizes) > COLD_PAGE_BYTES:
            self.problems.append(f"{name}: {sum(visit.sizes)} bytes, {len(visit.sizes)} requests")
        if prepare is not None:
            prepare(page)
        elif answer.status != status:
            self.problems.append(f"{name}: {answer.status}, not {status}")
        self.look(name)
        expected = COMPLAINT.format(status)
        self.problems += [f"{name}: {each}" for each in visit.messages if expected not in each]
        visit.messages.clear()

    def look(self, name: str) -> None:
        """Examine the page in sight in light, in dark and narrow; photograph each."""
        name, page = f"{self.prefix}-{name}", self.visit.page
        for scheme, rules in SCHEMES.items():
            page.emulate_media(color_scheme=scheme)
            self.problems += [f"{name}, {scheme}: {found}" for found in violations(page, rules)]
            self.photograph(f"{name}-{scheme}")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(NARROW)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > NARROW["width"]:
            self.problems.append(f"{name}: {width} pixels wide")
        self.photograph(f"{name}-narrow")
        page.set_viewport_size(WIDE)

    def photograph(self, name: str) -> None:
        """Keep a picture of the whole page.

        Asked of Chromium itself: Playwright would lay out each page twice more.
        """
        width, height = self.visit.page.evaluate(
            "[document.documentElement.clientWidth, document.documentElement.scrollHeight]"
        )
        taken = self.session.send(
            "Page.captureScreenshot",
            {
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
                "captureBeyondViewport": True,
                "optimizeForSpeed": True,
            },
        )
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(b64decode(taken["data"]))

    def sign_in(self, email: str, code: str | None = None) -> None:
        """Sign in by the forms, as somebody else than before."""
        page = self.visit.page
        self.visit.context.clear_cookies()
        # A page that refreshes itself can cut our own way off: leave it first.
        with suppress(PlaywrightError):
            page.goto("about:blank")
        page.goto(f"{self.site.origin}/sign-in")
        sign_in(page, email)
        if code is not None:
            page.get_by_label("Code").fill(code)
            press(page, "Continue")
        page.get_by_role("button", name="Sign out").wait_for()


@contextmanager
def walking(chromium: Browser, site: Site, prefix: str) -> Iterator[Walk]:
    """Open a window that keeps nothing in its cache; at the end nothing may have been wrong."""
    with visiting(chromium, viewport=WIDE) as visit:
        session = visit.context.new_cdp_session(visit.page)
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        walk = Walk(site, visit, session, prefix)
        yield walk
    assert walk.problems == []


def new_email(company: str = "") -> str:
    """Return an address at a domain nobody has used."""
    return f"kim@{company}{uuid4().hex[:8]}.example"


def press(page: Page, name: str) -> None:
    """Press a button and wait for the page behind it."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).first.click()


def see(page: Page, heading: str) -> None:
    """Wait for the page of this heading."""
    page.get_by_role("heading", name=heading).first.wait_for()


@pytest.mark.asvs("3.4.3")
@pytest.mark.xdist_group("site-pages")
def test_public_pages(chromium: Browser, site: Site) -> None:
    with walking(chromium, site, "public") as walk:
        walk.open("/", "landing")
        walk.open("/plans", "plans")
        walk.open("/downloads", "downloads")
        for topic in ("verify", "terms", "problems", "contact", "offline-or-leased"):
            walk.open(f"/help/{topic}", f"help-{topic}")
        walk.open("/sign-up", "sign-up")
        walk.open("/sign-up", "sign-up-errors", 400, lambda page: press(page, "Sign up"))
        walk.open("/sign-in", "sign-in")
        walk.open("/sign-in", "sign-in-wrong", 400, mistype_password)
        walk.open("/sign-in", "csrf", 400, lose_token)
        walk.open("/confirm-email?token=any", "confirm-link")
        walk.open("/sign-up", "confirm-code", prepare=lambda page: sign_up(page, new_email()))
        walk.open("/forgot-password", "forgot-password")
        walk.open("/forgot-password", "reset-sent", prepare=lambda page: forget(page, new_email()))
        walk.open("/reset-password/no-such-token", "reset-over", 404)
        walk.open("/nothing-here", "404", 404)
        walk.open("/dev/mail", "dev-mail")

        def follow_reset(page: Page) -> None:
            make_customer(site.transactions, email := new_email(), "Resets")
            forget(page, email)
            site.open_mail(page, email, "Set a new password")
            walk.look("dev-mail-one")
            words = page.locator("pre").inner_text().split()
            page.goto(next(word for word in words if "/reset-password/" in word))

        walk.open("/forgot-password", "reset-password", prepare=follow_reset)


def mistype_password(page: Page) -> None:
    page.get_by_label("E-mail address").fill(new_email())
    page.get_by_label("Password", exact=True).fill("not the password")
    press(page, "Sign in")


def lose_token(page: Page) -> None:
    page.get_by_label("E-mail address").fill("kim@northwind.example")
    page.locator(".form [name=csrf_token]").evaluate("field => { field.value = 'x' }")
    press(page, "Sign in")


def sign_up(page: Page, email: str) -> None:
    page.get_by_label("Work e-mail address").fill(email)
    page.get_by_label("Your name").fill("Kim Larsen")
    page.get_by_label("Company").fill("Northwind Traders")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("I accept the terms of use").check()
    press(page, "Sign up")
    see(page, "Check your e-mail")


def forget(page: Page, email: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    press(page, "Send the link")
    see(page, "Check your e-mail")


@pytest.mark.xdist_group("site-pages")
def test_pages_of_a_new_account(chromium: Browser, site: Site) -> None:
    with walking(chromium, site, "empty") as walk:
        email = new_email()
        account, owner = make_customer(site.transactions, email, "Fabrikam")
        walk.sign_in(email)
        walk.open("/account", "overview")
        for name in ("deployments", "requests", "members", "activity", "security"):
            walk.open(f"/account/{name}", name)
        walk.open("/account/security/password", "password")
        walk.open("/account/deployments/new", "deployment-new")
        walk.open("/account/requests/new/evaluation", "new-evaluation")
        walk.open("/account/requests/new/pilot", "new-pilot")
        walk.open(
            "/account/requests/new/pilot",
            "new-pilot-errors",
            400,
            lambda page: press(page, "Check your answers"),
        )
        walk.open("/account/nothing-here", "404", 404)
        walk.open("/", "landing-signed-in")
        deployment = make_deployment(site.transactions, account, "Göteborg")
        walk.open(f"/account/deployments/{deployment.id}", "deployment")
        walk.open("/account", "overview-unlicensed")
        walk.open("/sign-in/set-up-second-factor", "set-up-factor")
        walk.open("/sign-in/set-up-second-factor", "recovery-codes", prepare=set_up)

        declined = reminder_link(site, account.id, owner.id)
        walk.open(declined, "unsubscribe")
        walk.open(declined, "unsubscribed", prepare=lambda page: press(page, "Stop reminders"))

        make_member(site, account, outsider := new_email(), None)
        walk.sign_in(outsider)
        walk.open("/account/none", "no-account")


def set_up(page: Page) -> None:
    secret = page.locator("[data-copy-source]").inner_text()
    page.get_by_label("Code").fill(pyotp.TOTP(secret).now())
    press(page, "Confirm")
    see(page, "Keep your recovery codes")


@pytest.mark.xdist_group("site-pages")
def test_pages_of_a_busy_account(chromium: Browser, site: Site) -> None:
    with walking(chromium, site, "account") as walk:
        scene = make_scene(site, new_email("northwind-"))
        walk.sign_in(scene.email)
        walk.open("/account", "overview")
        for name in ("deployments", "requests", "members", "activity", "security"):
            walk.open(f"/account/{name}", name)
        walk.visit.page.goto(f"{site.origin}/account/activity")
        shown = walk.visit.page.get_by_text("Message on a request")
        assert shown.count() == 2, "the internal note is none of a customer's business"
        for name, path in scene.pages.items():
            walk.open(path, name)
        walk.open(
            scene.pages["deployment-leased"],
            "enrollment-code",
            prepare=lambda page: press(page, "Create an enrollment code"),
        )
        walk.open(scene.pages["license-replace"], "license-replace-check", prepare=replace_license)
        walk.open(
            scene.pages["license-replace"],
            "license-replace-errors",
            400,
            lambda page: press(page, "See what happens"),
        )
        walk.open(scene.pages["renewal-new"], "renewal-check", prepare=ask_to_renew)
        walk.open("/account/requests/new/pilot", "request-check", prepare=ask_for_pilot)
        walk.open("/account/requests/new/pilot", "413", 413, say_too_much)
        walk.open(scene.pages["request-open"], "409", 409, withdraw_twice)
        with site.without_worker():
            walk.open(
                scene.pages["request-granted"],
                "license-issuing",
                prepare=lambda page: press(page, "Start now"),
            )
        make_member(site, scene.account, viewer := new_email(), "viewer")
        walk.sign_in(viewer)
        walk.open("/account/deployments/new", "403", 403)
        walk.open(scene.pages["license"], "license-as-viewer")


def ask_for_pilot(page: Page) -> None:
    page.get_by_label("What is it for?").fill(
        "Route the support desk's questions.\n\nIn two halls."
    )
    page.get_by_label("What should the pilot show?").fill("Half the cost at the same quality.")
    page.get_by_label("Tokens you expect in a week").fill("2000000")
    page.get_by_label("Name of the new deployment").fill(LONG_NAME)
    page.get_by_label("I accept the terms of use").check()
    press(page, "Check your answers")


def replace_license(page: Page) -> None:
    page.get_by_label("The router has a new fingerprint").check()
    page.get_by_label("New instance fingerprint").fill("sha256:9b1c77aa02e4-rack9")
    press(page, "See what happens")


def ask_to_renew(page: Page) -> None:
    page.get_by_label("For how many days?").fill("60")
    page.get_by_label("I accept the terms of use").check()
    press(page, "Check your answers")


def say_too_much(page: Page) -> None:
    page.get_by_label("What is it for?").evaluate("field => { field.value = 'x'.repeat(300000) }")
    press(page, "Check your answers")


def withdraw_twice(page: Page) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    press(other, "Withdraw the request")
    other.close()
    press(page, "Withdraw the request")


@pytest.mark.xdist_group("site-journeys")
def test_staff_pages(chromium: Browser, site: Site) -> None:
    with walking(chromium, site, "staff") as walk:
        newcomer = f"new-{uuid4().hex[:6]}@vendor.test"
        make_staff(site.transactions, newcomer, "support")
        walk.open("/staff", "factor-wanted", prepare=lambda page: sign_in(page, newcomer))

        email = f"ann-{uuid4().hex[:6]}@vendor.test"
        walk.visit.context.clear_cookies()
        site.make_staff(email, "approver", "keys", "admin")
        walk.open("/staff", "second-factor", prepare=lambda page: sign_in(page, email))
        walk.sign_in(email, site.code_of(email))
        walk.open("/staff/instances?q=nothing", "instances-none")
        walk.open("/staff/requests?state=withdrawn&kind=renewal", "requests-none")
        scene = make_scene(site, new_email("northwind-"))
        walk.open("/staff", "overview")
        for name in ("requests", "accounts", "licenses", "instances", "keys", "audit", "health"):
            walk.open(f"/staff/{name}", name)
        walk.open("/staff/emails", "emails")
        walk.open("/staff/emails?q=nobody-at-all", "emails-none")
        for template in ("license-issued", "set-password"):
            walk.open(f"/staff/emails/{mail_of(site, template)}", f"email-{template}")
        walk.open("/staff/accounts?q=nobody-of-this-name", "accounts-none")
        for name, path in scene.staff_pages.items():
            walk.open(path, name)
        walk.open("/staff/acts", "acts-none")
        walk.open("/staff/bundles", "bundles")
        leased = scene.staff_pages["license-leased"]
        walk.open(f"{leased}/audit", "license-audit")
        walk.open(f"{leased}/acts/amend", "act-form")
        walk.open(f"{leased}/acts/revoke", "act-errors", 400, lambda page: press(page, "Preview"))
        walk.open(f"{leased}/acts/amend", "act-preview", prepare=amend_more)
        make_contract(site, walk, scene)
        walk.open("/staff/acts", "acts")
        walk.open("/staff", "overview-acts")
        asked = scene.staff_pages["request-open"]
        walk.open(f"{asked}/approve", "approve")
        walk.open(f"{asked}/approve", "approve-errors", 400, grant_nothing)
        walk.open(f"{asked}/approve", "approve-check", prepare=grant_less)
        walk.open(f"{asked}/decline", "decline")
        walk.open(asked, "request-errors", 400, lambda page: press(page, "Add"))
        walk.open("/account/security", "security")
        walk.open("/account/security", "again", prepare=want_recovery_codes)
        walk.open("/staff/nothing-here", "404", 404)
        walk.open("/account", "404-account", 404)


def mail_of(site: Site, template: str) -> str:
    """Return the id of a message of this template."""
    with site.transactions.reading(COMMAND) as context:
        return context.session.scalars(
            select(Email.id).where(Email.template == template).limit(1)
        ).one()


def reminder_link(site: Site, account_id: str, person_id: str) -> str:
    """Return the path that a reminder to this person gives to decline further ones."""
    with site.transactions.reading(COMMAND) as context:
        link = unsubscribe_link(context, person_id, account_id)
    return link.removeprefix(site.origin)


def sign_in(page: Page, email: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    press(page, "Sign in")


def amend_more(page: Page) -> None:
    page.get_by_label("Instances").fill("9")
    page.get_by_label("Fingerprints").fill("sha256:4f6a9c3e1d27-rack7")
    page.get_by_label("Reason").fill("They add six hosts in their second hall.")
    press(page, "Preview")


def make_contract(site: Site, walk: Walk, scene: Scene) -> None:
    """Look at an act on a contract that waits for its second person."""
    person = make_staff(site.transactions, f"lou-{uuid4().hex[:6]}@vendor.test", "approver")
    deployment = make_deployment(site.transactions, scene.account, "Oslo")
    contract = make_annual(site.transactions, deployment, person.id)
    act = do(site.transactions, REVOKE, contract.id, person.id)
    walk.open(f"/staff/acts/{act.id}", "act")
    walk.open(f"/staff/licenses/{contract.id}", "license-act-waits")


def grant_nothing(page: Page) -> None:
    page.get_by_label("Length in days").fill("")
    press(page, "Preview")


def grant_less(page: Page) -> None:
    page.get_by_label("Length in days").fill("14")
    page.get_by_label("Usage reporting").uncheck()
    page.get_by_label("Message to the customer").fill("Two weeks suit the volume you named.")
    press(page, "Preview")


def want_recovery_codes(page: Page) -> None:
    press(page, "Get new recovery codes")
