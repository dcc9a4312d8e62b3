"""What a new password must be: 12 to 128 characters, not a common one, not the person's own data.

No rules of composition. The list of common passwords is that of `zxcvbn`, held offline.
"""

from typing import Final

from zxcvbn import zxcvbn

from portal.domain.errors import Invalid

SHORTEST: Final = 12
LONGEST: Final = 128
GUESSES_LOG10: Final = 8.0
"""An offline attacker's guesses below which a password counts as common."""


def check_new_password(password: str, *own_words: str) -> None:
    """Refuse a password others would guess.

    Raises:
        Invalid: the message says what to change; it never repeats the password.
    """
    if len(password) < SHORTEST:
        raise Invalid(f"Use at least {SHORTEST} characters; a few words do well.", field="password")
    if len(password) > LONGEST:
        raise Invalid(f"Use at most {LONGEST} characters.", field="password")
    if "\x00" in password:
        raise Invalid("A password cannot hold a NUL character.", field="password")
    if _guesses(password, own_words) < GUESSES_LOG10:
        raise Invalid(
            "That password is among those attackers try first. Add words nobody would expect.",
            field="password",
        )


def _guesses(password: str, own_words: tuple[str, ...]) -> float:
    words = [part for word in own_words for part in word.replace("@", " ").split()]
    # The estimate's cost grows with the square of the length, and long ones are never common.
    return float(zxcvbn(password[:72], user_inputs=words)["guesses_log10"])
