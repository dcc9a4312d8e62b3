"""Names that people give themselves, their companies and their deployments."""

import unicodedata

from licensing.document import MAX_NAME_BYTES
from portal.domain.errors import Invalid


def clean_name(text: str, field: str) -> str:
    """Return a name without surplus white space, fit for pages, mails and signed documents.

    Raises:
        Invalid: it is empty, longer in UTF-8 than signed documents allow, or has control
            characters.
    """
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not name:
        raise Invalid("Enter a name.", field=field)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise Invalid(f"A name can have at most {MAX_NAME_BYTES} bytes.", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise Invalid("A name cannot contain control characters.", field=field)
    return name
