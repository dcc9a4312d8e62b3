"""Mail: rendered without harm, handed over by TLS, and never with a header that a name made."""

import ssl
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from portal.domain.ports import Mail, MailUndelivered
from portal.gateways.mail import DirectoryMailer, JinjaMailTemplates, SmtpMailer
from portal.resources import TEMPLATES
from tests.fakes import FakeClock, FakeRandomness
from tests.gateways.mail_server import Post, receiving
from tests.router.certificates import make_certificate

SENDER = "Licenses <licenses@vendor.test>"
MAIL = Mail("jo@newco.example", "License ready: 2 ☃", "Grüße\n.\nEnd\n", "<p>Grüße</p>")
BREAKS = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]


def mailer(post: Post, user: str = "", password: str | None = None) -> SmtpMailer:
    scheme = "smtps" if post.implicit_tls else "smtp"
    return SmtpMailer(f"{scheme}://{user}127.0.0.1:{post.port}", password, SENDER, FakeClock())


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS with a certificate that this machine trusts."""
    public, private = make_certificate(tmp_path, "mail")
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context


def test_a_message_arrives_as_it_was_written() -> None:
    with receiving(Post()) as post:
        mailer(post).send(MAIL)
    message = post.message
    assert post.recipients == ["jo@newco.example"]
    assert (message["From"], message["To"]) == (SENDER, "jo@newco.example")
    assert message["Subject"] == MAIL.subject
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] == "Mon, 23 Nov 2026 12:00:00 +0000"
    assert message["Message-ID"].endswith("@vendor.test>")
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == ["Grüße", ".", "End"]
    assert html.get_content().strip() == MAIL.html


@pytest.mark.asvs("12.3.1")
@pytest.mark.parametrize("implicit", [True, False])
def test_a_password_goes_over_tls(certificate: ssl.SSLContext, implicit: bool) -> None:
    with receiving(Post(tls=certificate, implicit_tls=implicit)) as post:
        mailer(post, "us%40er@", "pass").send(MAIL)
    assert post.logins == [("us@er", "pass", True)]
    assert len(post.taken) == 1


@pytest.mark.asvs("12.3.1")
def test_no_password_goes_in_clear() -> None:
    with receiving(Post()) as post:
        with pytest.raises(MailUndelivered, match="no TLS"):
            mailer(post, "user@", "pass").send(MAIL)
    assert (post.logins, post.taken) == ([], [])


@pytest.mark.asvs("12.3.2")
@pytest.mark.parametrize("implicit", [True, False])
def test_a_server_that_cannot_prove_its_name_gets_nothing(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool
) -> None:
    stranger, _ = make_certificate(tmp_path, "stranger")
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger))
    with receiving(Post(tls=certificate, implicit_tls=implicit)) as post:
        with pytest.raises(MailUndelivered, match="certificate"):
            mailer(post, "user@", "pass").send(MAIL)
    assert (post.logins, post.taken) == ([], [])


@pytest.mark.parametrize(
    "refusal",
    [
        {"EHLO": "hang up"},
        {"MAIL": "451 later"},
        {"RCPT": "550 unknown"},
        {"DATA": "452 full"},
        {"DATA": "hang up"},
    ],
)
def test_what_is_not_taken_is_undelivered(refusal: dict[str, str]) -> None:
    with receiving(Post(refuse=refusal)) as post:
        with pytest.raises(MailUndelivered, match=r"127\.0\.0\.1"):
            mailer(post).send(MAIL)
    assert post.taken == []


def test_a_server_that_is_not_there() -> None:
    with receiving(Post()) as post:
        pass
    with pytest.raises(MailUndelivered, match=r"127\.0\.0\.1"):
        mailer(post).send(MAIL)


@pytest.mark.asvs("1.3.11")
@pytest.mark.parametrize("line_break", BREAKS)
def test_a_line_break_in_a_name_never_reaches_a_header(tmp_path: Path, line_break: str) -> None:
    name = f"NewCo{line_break}Bcc: eve@evil.example{line_break}{line_break}Pay here"
    facts = {
        "kind": "pilot",
        "account": name,
        "name": name,
        "promised_at": "2026-11-25T09:00:00+00:00",
        "url": "/x",
    }
    rendered = JinjaMailTemplates("https://a.example").render("request-arrived", facts)
    assert rendered.subject.splitlines() == [rendered.subject]
    mail = Mail("ann@vendor.test", rendered.subject, rendered.text, rendered.html)
    DirectoryMailer(tmp_path, SENDER, FakeClock(), FakeRandomness()).send(mail)
    (path,) = tmp_path.iterdir()
    message = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert message["Bcc"] is None
    assert message["To"] == "ann@vendor.test"
    assert "Bcc: eve@evil.example" in message["Subject"]
    assert message["Auto-Submitted"] == "auto-generated"


@pytest.mark.asvs("1.3.11")
@pytest.mark.parametrize("field", ["to", "subject", "headers"])
@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_a_line_break_in_a_header_is_refused(tmp_path: Path, field: str, line_break: str) -> None:
    spoiled = f"a@b.example{line_break}Bcc: eve@evil.example"
    mails = {
        "to": replace(MAIL, to=spoiled),
        "subject": replace(MAIL, subject=spoiled),
        "headers": replace(MAIL, headers={"X-Name": spoiled}),
    }
    writer = DirectoryMailer(tmp_path, SENDER, FakeClock(), FakeRandomness())
    with pytest.raises(ValueError, match="linefeed"):
        writer.send(mails[field])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asvs("1.2.1")
def test_markup_in_a_name_is_inert(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)><a href='//evil.example'>"
    facts = {
        "kind": "pilot",
        "account": name,
        "name": name,
        "promised_at": "2026-11-25T09:00:00+00:00",
        "url": "/x",
    }
    rendered = JinjaMailTemplates("https://a.example").render("request-arrived", facts)
    assert "<img src=x" not in rendered.html
    assert "<a href='//evil" not in rendered.html
    assert '<a href="//evil' not in rendered.html
    assert "&lt;img src=x" in rendered.html
    assert name in rendered.text


def test_each_template_has_its_three_parts_and_asks_for_nothing_remote() -> None:
    found = [path for path in (TEMPLATES / "email").iterdir() if path.is_dir()]
    assert found
    for directory in found:
        assert {"subject.txt", "body.txt", "body.html"} <= {
            each.name for each in directory.iterdir()
        }
        for part in directory.iterdir():
            assert "http:" not in part.read_text()
            assert "<img" not in part.read_text()


def test_a_missing_fact_is_an_error_not_a_gap() -> None:
    with pytest.raises(UndefinedError):
        JinjaMailTemplates("https://a.example").render("request-arrived", {})


def test_a_directory_gets_whole_messages_in_order(tmp_path: Path) -> None:
    clock = FakeClock()
    writer = DirectoryMailer(tmp_path / "mail", SENDER, clock, FakeRandomness())
    for number in range(3):
        writer.send(replace(MAIL, to="../Jo/..@newco.example", subject=f"Number {number}"))
        clock.advance(seconds=1)
    paths = sorted((tmp_path / "mail").iterdir())
    assert [path.suffix for path in paths] == [".eml"] * 3
    subjects = [
        message_from_bytes(path.read_bytes(), policy=policy.default)["Subject"] for path in paths
    ]
    assert subjects == ["Number 0", "Number 1", "Number 2"]
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("a file")
    writer = DirectoryMailer(tmp_path / "mail", SENDER, FakeClock(), FakeRandomness())
    with pytest.raises(MailUndelivered, match="mail: "):
        writer.send(MAIL)
