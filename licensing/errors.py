"""One tree of errors. Each class has the stable code of the row of the verify table it stands for.

The meaning, exit code and next step of a code are data: see `licensing.names`.
"""

from typing import ClassVar


class LicensingError(Exception):
    """A document was refused. `detail` says what exactly, without quoting secrets."""

    code: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.subject = "license"
        """What kind of file was refused; the caller may set another. See `names.next_step`."""


class MalformedEnvelope(LicensingError):
    """Size, encoding, JSON, envelope shape or base64 is wrong."""

    code = "malformed-envelope"


class WrongType(LicensingError):
    """The envelope carries another kind of document than the one asked for."""

    code = "wrong-type"


class UntrustedKey(LicensingError):
    """No signature names a key of the keyset that may sign this kind of document."""

    code = "untrusted-key"


class BadSignature(LicensingError):
    """A trusted key is named, but its signature does not match these bytes."""

    code = "bad-signature"


class MalformedPayload(LicensingError):
    """The signed bytes are not restricted canonical JSON of this document's schema."""

    code = "malformed-payload"


class WrongIssuer(LicensingError):
    """The document was issued by somebody else."""

    code = "wrong-issuer"


class WrongProduct(LicensingError):
    """The document is for another product."""

    code = "wrong-product"


class KeyNotValid(LicensingError):
    """The key that signed was compromised, or not valid when the document was issued."""

    code = "key-not-valid"


class KeysetTooOld(LicensingError):
    """The document needs a newer keyset than this one."""

    code = "keyset-too-old"


class NotYetValid(LicensingError):
    """The document is not valid yet."""

    code = "not-yet-valid"


class Expired(LicensingError):
    """The document has expired."""

    code = "expired"


class WrongInstance(LicensingError):
    """The document is bound to another instance or deployment."""

    code = "wrong-instance"


class RolledBack(LicensingError):
    """The document is older than one already used here."""

    code = "rolled-back"


class Revoked(LicensingError):
    """The revocation bundle revokes the license."""

    code = "revoked"


class Suspended(LicensingError):
    """The revocation bundle suspends the license."""

    code = "suspended"


class Superseded(LicensingError):
    """The revocation bundle says that another license replaced this one."""

    code = "superseded"


class RevocationRequired(LicensingError):
    """A current revocation bundle is needed, and none was ever seen."""

    code = "revocation-required"


class RevocationUnusable(LicensingError):
    """A revocation bundle was seen before and is now missing, older, expired or bad."""

    code = "revocation-unusable"
