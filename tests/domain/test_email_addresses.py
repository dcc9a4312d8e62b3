"""Addresses: what is one, whose domain it is, and who gives mailboxes to anybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.email_addresses import parse_email
from portal.domain.errors import Invalid


@pytest.mark.parametrize(
    ("text", "stored", "registrable"),
    [
        ("Jo@NewCo.example", "jo@newco.example", "newco.example"),
        ("  jo@newco.example ", "jo@newco.example", "newco.example"),
        ("jo@mail.eu.newco.co.uk", "jo@mail.eu.newco.co.uk", "newco.co.uk"),
        ("jo@bücher.example", "jo@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("jo+tag@newco.example", "jo+tag@newco.example", "newco.example"),
        ("jo@someone.github.io", "jo@someone.github.io", "someone.github.io"),
    ],
)
def test_an_address_is_stored_in_one_way(text: str, stored: str, registrable: str) -> None:
    address = parse_email(text)
    assert (address.text, address.registrable_domain) == (stored, registrable)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jo",
        "jo@",
        "@newco.example",
        "jo@newco",
        "jo@@newco.example",
        "jo@newco.example\nbcc: x@y.example",
        "jo@newco..example",
        "jo@-newco.example",
        "jo@[127.0.0.1]",
        '"jo bloggs"@newco.example',
        "jo@newco.example, x@y.example",
        f"{'a' * 250}@newco.example",
        "jo\x00@newco.example",
    ],
)
def test_what_mail_cannot_reach_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match=r"name@company\.com|at most 254 bytes") as refused:
        parse_email(text)
    assert refused.value.field == "email"


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("jo@gmail.com", True),
        ("jo@GMAIL.com", True),
        ("jo@yahoo.co.uk", True),
        ("jo@outlook.com", True),
        ("jo@newco.example", False),
        ("jo@gmail.com.newco.example", False),
    ],
)
def test_providers_of_free_mailboxes_are_known(text: str, free: bool) -> None:
    assert parse_email(text).is_free_mail is free


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_email(text)
    except Invalid:
        return
    assert parse_email(address.text) == address
    assert "\n" not in address.text
    assert "\r" not in address.text
