"""A vendor that signs any document, right or wrong, for the router's side to judge."""

from dataclasses import dataclass, field
from typing import Any

from licensing.document import Document
from licensing.encoding import b64encode, crockford, sha256_hex
from licensing.envelope import Envelope, Signature, pae
from licensing.keys import ZERO_SHA256, Key, Keyset, Root
from licensing.lease import Lease
from licensing.license import Binding, LeaseTerms, License, Limits, RevocationTerms
from licensing.names import PRODUCT
from licensing.revocation import RevocationBundle, RevocationEntry
from licensing.verify import KeysetTrust, Verified, verify_keyset, verify_license
from tests.fakes import MemorySigner

AT = 1_795_000_000
"""When the vendor's documents are judged (Unix time)."""
DAY_S = 86_400
ISSUED_AT = AT - DAY_S
EXPIRES_AT = AT + 29 * DAY_S
ORIGIN = "http://127.0.0.1:8000"


def identifier(prefix: str, number: int = 0) -> str:
    """Return a well-formed identifier."""
    return f"{prefix}_{crockford(number.to_bytes(16, 'big'))}"


def spki_pem(raw: bytes) -> bytes:
    """Write a raw Ed25519 public key as PEM."""
    der = bytes.fromhex("302a300506032b6570032100") + raw
    return f"-----BEGIN PUBLIC KEY-----\n{b64encode(der)}\n-----END PUBLIC KEY-----\n".encode()


def sign(payload: bytes, payload_type: str, signer: MemorySigner) -> Envelope:
    """Sign bytes as they stand."""
    signature = Signature(signer.keyid, signer.sign(pae(payload_type, payload)))
    return Envelope(payload, payload_type, (signature,))


@dataclass
class Vendor:
    """A root and one key of each role, with the documents they sign."""

    name: str = "the vendor"
    status: str = "active"
    """Of the license key."""
    version: int = 1
    signers: dict[str, MemorySigner] = field(init=False)

    def __post_init__(self) -> None:
        self.signers = {
            role: MemorySigner(f"TEST KEY {self.name} {role}".encode())
            for role in ("root", "license", "lease", "revocation")
        }

    def sign(self, document: Document, role: str) -> Envelope:
        """Sign a document with the key of a role."""
        return sign(document.to_bytes(), document.PAYLOAD_TYPE, self.signers[role])

    def keyset(self, **changes: Any) -> bytes:
        """Return the signed keyset."""
        root = self.signers["root"]
        values: dict[str, Any] = {
            "typ": Keyset.TYP,
            "iss": "metrum.ai",
            "product": PRODUCT,
            "issued_at": ISSUED_AT - DAY_S,
            "version": self.version,
            "expires_at": AT + 365 * DAY_S,
            "prev_sha256": ZERO_SHA256 if self.version == 1 else "1" * 64,
            "root_threshold": 1,
            "roots": (
                Root(keyid=root.keyid, alg="ed25519", public_key=b64encode(root.public_key)),
            ),
            "keys": tuple(
                Key(
                    keyid=self.signers[role].keyid,
                    alg="ed25519",
                    public_key=b64encode(self.signers[role].public_key),
                    role=role,
                    status=self.status if role == "license" else "active",  # type: ignore[arg-type]
                    not_before_at=ISSUED_AT - DAY_S,
                    not_after_at=AT + 365 * DAY_S,
                )
                for role in ("license", "lease", "revocation")
            ),
        }
        return self.sign(Keyset(**{**values, **changes}), "root").to_bytes()

    def license(self, **changes: Any) -> bytes:
        """Return a signed license: offline, for any instance, unless `changes` say otherwise."""
        values: dict[str, Any] = {
            "typ": License.TYP,
            "iss": "metrum.ai",
            "product": PRODUCT,
            "issued_at": ISSUED_AT,
            "license_id": identifier("lic", 1),
            "deployment_id": identifier("dep", 1),
            "revision": 1,
            "customer_id": identifier("cus", 1),
            "customer_name": "NewCo",
            "sku": "pilot-30d",
            "mode": "offline",
            "not_before_at": ISSUED_AT,
            "expires_at": EXPIRES_AT,
            "features": ("routing", "usage_reporting"),
            "limits": Limits(max_instances=3),
            "binding": Binding(fingerprints=()),
            "support_tier": "gold",
            "revocation": RevocationTerms(require_current_bundle=False, min_version=0),
            "min_keyset_version": 1,
        }
        return self.sign(License(**{**values, **changes}), "license").to_bytes()

    def leased(self, url: str = ORIGIN, **changes: Any) -> bytes:
        """Return a signed license in lease mode."""
        terms = LeaseTerms(url=url, ttl_s=3 * DAY_S, grace_s=7 * DAY_S)
        return self.license(mode="lease", lease=terms, **changes)

    def bundle(self, *entries: RevocationEntry, **changes: Any) -> bytes:
        """Return a signed revocation bundle."""
        values: dict[str, Any] = {
            "typ": RevocationBundle.TYP,
            "iss": "metrum.ai",
            "product": PRODUCT,
            "issued_at": ISSUED_AT,
            "version": ISSUED_AT,
            "expires_at": ISSUED_AT + 35 * DAY_S,
            "entries": entries,
        }
        return self.sign(RevocationBundle(**{**values, **changes}), "revocation").to_bytes()

    def lease(self, **values: Any) -> Envelope:
        """Return a signed lease."""
        return self.sign(Lease(typ=Lease.TYP, iss="metrum.ai", product=PRODUCT, **values), "lease")

    def trust(self, at: int = AT) -> KeysetTrust:
        """Return the trust in this vendor's keyset."""
        return KeysetTrust(verify_keyset(self.keyset(), at).document)

    def verified(self, data: bytes, at: int = AT) -> Verified[License]:
        """Verify one of this vendor's licenses."""
        return verify_license(data, self.trust(at), at)


def entry(status: str, effective_at: int = ISSUED_AT) -> RevocationEntry:
    """Return an entry about the license this vendor signs by default."""
    return RevocationEntry(
        license_id=identifier("lic", 1),
        status=status,  # type: ignore[arg-type]
        effective_at=effective_at,
        reason="withdrawn",
    )


__all__ = ["AT", "DAY_S", "EXPIRES_AT", "ISSUED_AT", "Vendor", "entry", "identifier", "sha256_hex"]
