"""People's way through the portal in a real browser, with and without JavaScript, and by keyboard.

What they download is checked by the installed `router-license` command, as an operator would.
"""

import hashlib
import re
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from licensing.errors import LicensingError
from licensing.names import CODES
from licensing.verify import KeysetTrust, verify_keyset, verify_license
from tests.browser.browsing import visiting
from tests.browser.site import WAIT_S, Site
from tests.cli.programs import Ran
from tests.factories.accounts import PASSWORD
from tests.spread import spread

pytestmark = [pytest.mark.xdist_group("site-journeys"), pytest.mark.slow]

FINGERPRINT = "sha256:4f6a9c3e-rack7.newco"
HEX = b"0123456789abcdef"


def new_address() -> str:
    """Return a work address of a company nobody has heard of."""
    return f"jo@{uuid4().hex[:12]}.example"


@dataclass
class Person:
    """Somebody in front of a browser."""

    site: Site
    page: Page
    acts: list[str] = field(default_factory=list)
    """The links followed and buttons pressed."""

    def open(self, path: str) -> None:
        self.page.goto(self.site.origin + path)

    def follow(self, name: str, *, exact: bool = True) -> None:
        self.acts.append(name)
        self.page.get_by_role("link", name=name, exact=exact).first.click()

    def press(self, name: str) -> None:
        self.acts.append(name)
        self.page.get_by_role("button", name=name, exact=True).click()

    def fill(self, label: str, text: str) -> None:
        self.page.get_by_label(label).fill(text)

    def see(self, heading: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_role("heading", level=1, name=heading)).to_be_visible(
            timeout=WAIT_S * 1000
        )

    def save(self, name: str, directory: Path) -> Path:
        """Download a file by its button; return where it was saved."""
        with self.page.expect_download() as started:
            self.page.get_by_role("link", name=f"Download {name}").click()
        assert started.value.suggested_filename == name
        path = directory / name
        started.value.save_as(path)
        return path

    def sign_in(self, email: str) -> None:
        self.see("Sign in")
        self.fill("E-mail address", email)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.press("Sign in")

    def join(self, email: str, company: str, *, by_code: bool) -> None:
        """Sign up, confirm the address, and sign in."""
        self.open("/sign-up")
        self.fill("Work e-mail address", email)
        self.fill("Your name", "Jo Newman")
        self.fill("Company", company)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_label("I accept the terms of use").check()
        self.press("Sign up")
        self.see("Check your e-mail")
        self.site.open_mail(self.page, email, "Confirm")
        text = self.page.locator("pre").inner_text()
        if by_code:
            code = re.search(r"^\s*(\d{8})\s*$", text, re.MULTILINE)
            assert code, text
            self.open("/confirm-email")
            self.fill("Code", code[1])
            self.press("Confirm")
        else:
            link = re.search(rf"{re.escape(self.site.origin)}/confirm-email\?\S+", text)
            assert link, text
            self.page.goto(link[0])
            self.see("Confirm your e-mail address")
            self.press("Confirm my address")
        self.sign_in(email)
        self.see(company)


@contextmanager
def somebody(chromium: Browser, site: Site, *, script: bool = True) -> Iterator[Person]:
    """Open a window for a person."""
    with visiting(chromium, java_script_enabled=script, accept_downloads=True) as visit:
        yield Person(site, visit.page)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_an_evaluation_from_sign_up_to_verified(
    chromium: Browser, site: Site, tmp_path: Path, script: bool
) -> None:
    with somebody(chromium, site, script=script) as jo:
        jo.join(new_address(), "NewCo", by_code=not script)
        jo.follow("Request an evaluation")
        jo.see("Request an evaluation")
        jo.fill("What is it for?", "Route the support desk's questions.")
        jo.fill("Name of the new deployment", "Stockholm")
        jo.page.get_by_label("Offline", exact=True).check()
        jo.page.get_by_label("Bind the license to one instance").check()
        jo.fill("Instance fingerprint", FINGERPRINT)
        jo.page.get_by_label("I accept the terms of use").check()
        jo.press("Check your answers")
        jo.see("Check your answers")
        expect(jo.page.locator("dl", has_text="Bound to")).to_contain_text(FINGERPRINT)
        with site.without_worker():
            jo.press("Send the request")
            jo.see("Your license is being signed")
        jo.see("eval-72h for Stockholm")
        verified = check_files(jo, tmp_path)
        jo.open("/")
        shown = "\n".join(jo.page.locator(".session__line").all_inner_texts())
        assert names_in(shown) == names_in(verified.stdout)


def check_files(owner: Person, directory: Path) -> Ran:
    """Download the license and the kit from its page; verify them as that page says.

    Returns what the command said of the license.
    """
    page, shell = owner.page, owner.site.shell
    license_json = owner.save("license.json", directory)
    kit_zip = owner.save("kit.zip", directory)
    shown = hashes_on(page)
    assert sha256(license_json) == shown["license.json"]
    assert sha256(kit_zip) == shown["kit.zip"]

    with zipfile.ZipFile(kit_zip) as kit:
        kit.extractall(directory)
    kit_directory = directory / "smart-router-license"
    lines = (kit_directory / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.name: sha256(path) for path in kit_directory.iterdir()}
    assert files == {**sums, "SHA256SUMS": files["SHA256SUMS"]}
    assert {name: sums[name] for name in shown if name != "kit.zip"} == {
        name: value for name, value in shown.items() if name != "kit.zip"
    }

    block = page.locator(".code-block", has_text="router-license verify").first
    fetch, command = block.locator("code").inner_text().splitlines()
    assert fetch == f"curl -fsSO {owner.site.origin}/v1/keyset.json"
    program, *arguments = shlex.split(command)
    assert program == "router-license"

    def verify(*more: str) -> Ran:
        here = [str(kit_directory / each) if each.endswith(".json") else each for each in arguments]
        return shell.run("router-license", *here, *more)

    ran = verify()
    assert ran.status == 0, ran
    assert says(ran, "result", "valid"), ran

    until = (
        page.locator(".facts__row", has_text="Expires").locator("time").get_attribute("datetime")
    )
    assert until is not None
    expires_at = int(datetime.fromisoformat(until).timestamp())
    assert verify("--as-of", str(expires_at - 1)).status == 0
    late = verify("--as-of", str(expires_at))
    assert (late.status, says(late, "code", "expired")) == (5, True), late
    check_without_our_command(page, license_json, kit_directory / "keyset.json")
    if "--fingerprint" in arguments:
        other = verify("--fingerprint", "sha256:another-host")
        assert (other.status, says(other, "code", "wrong-instance")) == (5, True), other
    check_every_byte(owner.site, license_json, kit_directory / "keyset.json", expires_at - 1)
    return ran


def check_without_our_command(page: Page, license_json: Path, keyset: Path) -> None:
    """Run the page's recipe for openssl and jq, on the license and on a changed one."""
    page.get_by_text("Without our command").click()
    recipe = page.locator(".code-block", has_text="openssl").locator("code").inner_text()
    for name, data in (
        ("genuine", license_json.read_bytes()),
        ("changed", license_json.read_bytes().replace(b'"payload":"eyJ', b'"payload":"eyK')),
    ):
        directory = license_json.parent / name
        directory.mkdir()
        (directory / "license.json").write_bytes(data)
        (directory / "keyset.json").write_bytes(keyset.read_bytes())
        ran = subprocess.run(
            ["sh", "-c", recipe],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if name == "genuine":
            assert ran.returncode == 0, ran
            assert "Signature Verified Successfully" in ran.stdout
            assert '"expires": "' in ran.stdout
        else:
            assert ran.returncode != 0, ran


def says(ran: Ran, name: str, value: str) -> bool:
    """Say whether a command printed this value under this name."""
    return re.search(rf"^{name}:\s+{value}$", ran.stdout, re.MULTILINE) is not None


def names_in(printed: str) -> list[str]:
    """Return the names of the facts a command printed, in order."""
    return re.findall(r"^(\w+):", printed, re.MULTILINE)


def check_every_byte(site: Site, license_json: Path, keyset: Path, at: int) -> None:
    """Change byte after byte: exit 3, or 7 where a well-formed id of an unknown key is left."""
    data = license_json.read_bytes()
    trust = KeysetTrust(verify_keyset(keyset.read_bytes(), at).document)
    verify_license(data, trust, at)
    keyid = re.search(rb'"keyid":"([0-9a-f]{64})"', data)
    assert keyid is not None
    expected, damaged = {}, {}
    ends = (0, len(data) // 3, keyid.start(1), len(data) - 3)
    for index in {*spread(range(len(data)), 11), *ends}:
        changed = data[index] ^ 1
        in_keyid = keyid.start(1) <= index < keyid.end(1) and changed in HEX
        expected[index] = 7 if in_keyid else 3
        damaged[index] = data[:index] + bytes([changed]) + data[index + 1 :]
        with pytest.raises(LicensingError) as caught:
            verify_license(damaged[index], trust, at)
        assert CODES[caught.value.code].exit == expected[index], (index, caught.value)
    for index in spread(ends, 2):
        copy = license_json.with_name("damaged.json")
        copy.write_bytes(damaged[index])
        ran = site.shell.run("router-license", "verify", copy, "--keyset", keyset)
        assert ran.status == expected[index], (index, ran)


def hashes_on(page: Page) -> dict[str, str]:
    """Return the SHA-256 beside each file of a license's page."""
    found = {}
    for item in page.locator(".files__item").all():
        name = item.locator(".files__name").inner_text()
        found[name] = item.locator("[data-copy-source]").inner_text()
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_pilot_from_the_queue_to_serving(chromium: Browser, site: Site, tmp_path: Path) -> None:
    email, company = new_address(), f"Pilots {uuid4().hex[:6]}"
    approver = f"ann-{uuid4().hex[:8]}@vendor.test"
    site.make_staff(approver, "approver")
    with somebody(chromium, site) as jo, somebody(chromium, site) as ann:
        jo.join(email, company, by_code=True)
        ask_for_pilot(jo)
        reference = jo.page.locator(".receipt code").inner_text()

        ann.open("/staff/requests")
        ann.sign_in(approver)
        ann.see("Enter your code")
        ann.fill("Code", site.code_of(approver))
        ann.press("Continue")
        ann.see("Requests")
        ann.page.get_by_label("Kind").select_option("pilot")
        ann.page.wait_for_url("**kind=pilot**")
        ann.follow(company)
        ann.press("Take it")
        expect(ann.page.get_by_text("is reviewing this")).to_be_visible()
        expect(ann.page.get_by_text(reference)).to_be_visible()

        ann.open("/staff/requests")
        ann.acts.clear()
        row = ann.page.locator("tr", has_text=company)
        expect(row).to_contain_text("In review")
        row.get_by_role("link", name="Decide").click()
        ann.fill("Length in days", "14")
        ann.fill("Instances", "5")
        ann.fill("Message to the customer", "Two weeks suit the volume you named.")
        ann.press("Preview")
        expect(ann.page.locator("dl", has_text="Length")).to_contain_text("30 days")
        ann.press("Approve")
        expect(ann.page.get_by_text("Approved. The customer was told by e-mail")).to_be_visible()
        assert 1 + len(ann.acts) <= 3, ann.acts

        site.open_mail(jo.page, email, "Your pilot is granted")
        mail = jo.page.locator("pre").inner_text()
        assert "Two weeks suit the volume you named." in mail
        assert re.search(r"requested 30 days, granted 14 days", mail), mail
        link = re.search(rf"{re.escape(site.origin)}/account/requests/\S+", mail)
        assert link, mail
        jo.page.goto(link[0])
        expect(jo.page.get_by_text("Ready to start")).to_be_visible()
        changes = jo.page.locator("section", has_text="What we changed")
        expect(changes.locator("del", has_text="30 days")).to_be_visible()
        expect(changes.locator("ins", has_text="14 days")).to_be_visible()
        expect(jo.page.get_by_text("Two weeks suit the volume you named.")).to_be_visible()
        jo.press("Start now")
        jo.see(re.compile("pilot-30d for"))
        check_files(jo, tmp_path)


def test_a_router_without_a_network(chromium: Browser, site: Site, tmp_path: Path) -> None:
    shell, lease = site.shell, tmp_path / "lease"
    with somebody(chromium, site) as jo:
        jo.join(new_address(), "Vault", by_code=True)
        jo.follow("Request an evaluation")
        jo.fill("What is it for?", "Answer questions behind a wall.")
        jo.page.locator("input[name=mode][value=lease]").check()
        jo.page.get_by_label("I accept the terms of use").check()
        jo.press("Check your answers")
        jo.press("Send the request")
        jo.see(re.compile("eval-72h for"))
        license_ = jo.save("license.json", tmp_path)
        keyset = tmp_path / "keyset.json"
        keyset.write_bytes(jo.page.request.get(f"{site.origin}/v1/keyset.json").body())

        jo.open("/account/deployments")
        jo.page.locator("main a[href^='/account/deployments/dep_']").first.click()
        jo.press("Create an enrollment code")
        code = tmp_path / "code.txt"
        code.write_text(jo.page.locator("[data-copy-source]").first.inner_text())

        for seq in (1, 2):
            enrolling = ("--license", license_, "--keyset", keyset, "--code-file", code)
            request = tmp_path / f"request-{seq}.json"
            asked = shell.run(
                "router-license",
                *("courier", "request", "--state-dir", lease, "--out", request),
                *(enrolling if seq == 1 else ()),
            )
            assert asked.status == 0, asked.stderr
            jo.open("/account/courier")
            jo.page.get_by_label("File").set_input_files(request)
            jo.press("Answer the request")
            jo.see("The answer is ready")
            answer = jo.save("answer.json", tmp_path)
            shell.router("courier", "install", answer, "--state-dir", lease)
            shown = shell.router("status", "--state-dir", lease)
            assert (shown["status"], shown["seq"], shown["by_courier"]) == ("serving", seq, True)
        jo.page.get_by_text("Show the codes").click()
        expect(jo.page.locator(".qr svg").first).to_be_visible()


def ask_for_pilot(customer: Person) -> None:
    """Send a request for a pilot and see its reference."""
    customer.open("/account/requests/new/pilot")
    customer.fill("What is it for?", "Route the support desk's questions.")
    customer.fill("What should the pilot show?", "Half the cost at the same quality.")
    customer.fill("Tokens you expect in a week", "2000000")
    customer.page.get_by_label("I accept the terms of use").check()
    customer.press("Check your answers")
    customer.see("Check your answers")
    customer.press("Send the request")
    customer.see("We have your request")


class Keyboard:
    """Somebody without a mouse."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def go_to(self, target: Locator) -> None:
        """Press Tab until the target has the focus."""
        for _ in range(120):
            if target.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab never came to {target}")

    def write(self, label: str, text: str) -> None:
        self.go_to(self.page.get_by_label(label, exact=True))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def check(self, label: str) -> None:
        box = self.page.get_by_label(label, exact=True)
        self.go_to(box)
        self.page.keyboard.press("Space")
        expect(box).to_be_checked()

    def enter(self, role: str, name: str) -> None:
        found = self.page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
        self.go_to(found.first)
        self.page.keyboard.press("Enter")


def test_an_evaluation_by_keyboard_alone(chromium: Browser, site: Site) -> None:
    email = new_address()
    with somebody(chromium, site) as jo:
        keys = Keyboard(jo.page)
        jo.open("/")
        keys.enter("link", "Sign up")
        jo.see("Sign up")
        keys.write("Work e-mail address", email)
        keys.write("Your name", "Jo Newman")
        keys.write("Company", "Keys")
        keys.write("Password", PASSWORD)
        keys.check("I accept the terms of use")
        keys.enter("button", "Sign up")
        jo.see("Check your e-mail")
        site.open_mail(jo.page, email, "Confirm")
        code = re.search(r"^\s*(\d{8})\s*$", jo.page.locator("pre").inner_text(), re.MULTILINE)
        assert code is not None
        jo.open("/confirm-email")
        keys.write("Code", code[1])
        jo.page.keyboard.press("Enter")
        jo.see("Sign in")
        keys.write("E-mail address", email)
        keys.write("Password", PASSWORD)
        jo.page.keyboard.press("Enter")
        jo.see("Keys")
        keys.enter("link", "Request an evaluation")
        jo.see("Request an evaluation")
        keys.write("What is it for?", "Route questions.")
        keys.go_to(jo.page.get_by_label("Offline", exact=True))
        jo.page.keyboard.press("ArrowDown")
        expect(jo.page.get_by_label("Leased", exact=True)).to_be_checked()
        keys.check("I accept the terms of use")
        keys.enter("button", "Check your answers")
        jo.see("Check your answers")
        keys.enter("button", "Send the request")
        jo.see("eval-72h for Production")
        keys.go_to(jo.page.get_by_role("link", name="Download license.json"))
        with jo.page.expect_download() as started:
            jo.page.keyboard.press("Enter")
        assert started.value.suggested_filename == "license.json"
