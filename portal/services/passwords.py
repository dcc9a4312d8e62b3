"""Rules for a new password: 12 to 128 characters, not common, not the person's own data.

There are no rules about kinds of characters. Common passwords are those that `zxcvbn` knows.
"""

from typing import Final

from zxcvbn import zxcvbn

from portal.domain.errors import Invalid

SHORTEST: Final = 12
LONGEST: Final = 128
OWN_AT_LEAST: Final = 6
"""Letters and digits a password must have besides the person's own words."""
GUESSES_LOG10: Final = 8.0
"""A password counts as common if an offline attacker needs fewer guesses than this."""


def check_new_password(password: str, *own_words: str) -> None:
    """Refuse a password that others could guess.

    Raises:
        Invalid: the message says what to change; it never repeats the password.
    """
    if len(password) < SHORTEST:
        raise Invalid(
            f"Use at least {SHORTEST} characters; a few unrelated words work well.",
            field="password",
        )
    if len(password) > LONGEST:
        raise Invalid(f"Use at most {LONGEST} characters.", field="password")
    if "\x00" in password:
        raise Invalid("A password cannot contain a NUL character.", field="password")
    if len(_without(password, own_words)) < OWN_AT_LEAST:
        raise Invalid(
            "That is little more than your name, company or address. Add other words.",
            field="password",
        )
    if _guesses(password, own_words) < GUESSES_LOG10:
        raise Invalid(
            "That is one of the passwords that attackers try first. Add words nobody would expect.",
            field="password",
        )


def _parts(own_words: tuple[str, ...]) -> list[str]:
    return [part for word in own_words for part in word.replace("@", " ").split()]


def _without(password: str, own_words: tuple[str, ...]) -> str:
    """Return the letters and digits that are left without the person's own words."""
    left = password.casefold()
    for part in sorted(_parts(own_words), key=len, reverse=True):
        if len(part) >= 3:
            left = left.replace(part.casefold(), "")
    return "".join(character for character in left if character.isalnum())


def _guesses(password: str, own_words: tuple[str, ...]) -> float:
    # The estimate's cost grows with the square of the length, and long ones are never common.
    return float(zxcvbn(password[:72], user_inputs=_parts(own_words))["guesses_log10"])
