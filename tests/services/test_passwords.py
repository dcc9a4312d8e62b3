"""New passwords: long, not complicated, not common, not one's own data."""

import pytest

from portal.domain.errors import Invalid
from portal.services.passwords import check_new_password

LONG_PASSPHRASE = (
    "seventeen purple otters juggle quietly beside the frozen lighthouse while"
    " nobody keeps count of the falling apricots in spring"
).ljust(128, "!")
OWN = ("kim@widgets.example", "Kim Lee", "Widgets")


@pytest.mark.asvs("6.2.5", "6.2.9")
@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple of mine",
        "ÄÖÜ only letters und leer",
        "q7#kfZ-pw0_q",
        LONG_PASSPHRASE,
    ],
)
def test_a_good_one_needs_no_rules_of_composition(password: str) -> None:
    check_new_password(password, *OWN)


@pytest.mark.asvs("6.2.1", "6.2.4", "6.2.12")
@pytest.mark.parametrize(
    "password",
    [
        "elevenchars",
        "passwordpassword",
        "qwertyuiop[]",
        "kim lee widgets",
        "kim@widgets.example",
        "a horse nobody\x00 expects",
        LONG_PASSPHRASE + "!",
    ],
)
def test_one_that_others_would_guess_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_new_password(password, *OWN)
    assert refused.value.field == "password"
    assert password not in refused.value.message
