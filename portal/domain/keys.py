"""Which keys sign now, and what the next keyset says: announce, retire, compromise.

Invariants: every keyset made here continues the one it was made from (`prev_sha256`, version plus
1). A key never leaves the keyset, since what it signed goes on being verified; its status only
worsens. A role always keeps an active key, and between the announcement of a successor and the
retirement of its predecessor it has two.

Times are Unix seconds. Source: "Keys" of the life cycle; keyset.v1 of the signed documents.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from licensing.encoding import b64encode
from licensing.keys import Key, Keyset, Root, key_id
from portal.domain.errors import Conflict, Invalid, NotFound

KEY_LIFETIME_S: Final = 3 * 365 * 86400
KEYSET_LIFETIME_S: Final = 3 * 365 * 86400
BACKDATE_S: Final = 300
"""A key that counts at once counts from a little earlier: other clocks may be behind."""
ACTIVATE_IN_S: Final = 14 * 86400
"""How long a new key is announced before it signs, unless somebody says otherwise."""
MOST_ACTIVATE_IN_S: Final = 365 * 86400
ROOT: Final = "root"

SHORT_MESSAGE_BYTES: Final = MappingProxyType({"aws-kms": 4096, "gcp-kms": 4096})
"""Keepers that sign only short messages, by the scheme of their URIs. AWS states its limit; Google
states none for messages, so the same is asked of both."""
SHORT_ROLES: Final = ("license", "lease")
"""Roles whose documents are short. A bundle may have 16 MiB, a keyset 1 MiB."""

Role = Literal["license", "lease", "revocation"]


def misfit(role: str, uri: str) -> str | None:
    """Say why a key at this URI cannot be a key of this role; None when it can."""
    scheme = uri.partition(":")[0]
    if scheme not in SHORT_MESSAGE_BYTES or role in SHORT_ROLES:
        return None
    return (
        f"{scheme}: keys sign at most {SHORT_MESSAGE_BYTES[scheme]} bytes, so they can be "
        f"{' or '.join(SHORT_ROLES)} keys, not {role} keys"
    )


@dataclass(frozen=True)
class Held:
    """A published keyset that the next one continues."""

    keyset: Keyset
    payload_sha256: str


def signing_keys(
    keyset: Keyset, role: str, at: int, *, stopped: frozenset[str] = frozenset()
) -> tuple[Key, ...]:
    """Return the keys that sign what is issued at this instant, the newest first.

    Those are all active ones: between activation and retirement, two. `stopped` are key ids of
    which somebody said that they are compromised.
    """
    usable = [
        key
        for key in keyset.keys
        if key.role == role
        and key.status == "active"
        and key.keyid not in stopped
        and key.covers(at)
    ]
    return tuple(sorted(usable, key=_age, reverse=True))


def _age(key: Key) -> tuple[int, str]:
    return key.not_before_at, key.keyid


def new_key(public_key: bytes, role: str, not_before_at: int) -> Key:
    """Return an active key as a keyset lists it."""
    return Key(
        keyid=key_id(public_key),
        alg="ed25519",
        public_key=b64encode(public_key),
        role=msgspec.convert(role, Role),
        status="active",
        not_before_at=not_before_at,
        not_after_at=not_before_at + KEY_LIFETIME_S,
    )


def new_root(public_key: bytes) -> Root:
    """Return a root as a keyset lists it."""
    return Root(keyid=key_id(public_key), alg="ed25519", public_key=b64encode(public_key))


def find_key(keyset: Keyset, keyid: str) -> Key:
    """Return a key of the keyset, whatever its status.

    Raises:
        NotFound: it lists no such key.
    """
    key = keyset.by_keyid.get(keyid)
    if key is None:
        raise NotFound(f"The keyset has no key {keyid}.")
    return key


def require_rotatable(keyset: Keyset, role: str, activate_in_s: int) -> None:
    """Require that a successor can be announced for this role.

    Raises:
        Invalid: the delay is out of range.
        Conflict: a rotation of the role is under way.
    """
    if not 0 <= activate_in_s <= MOST_ACTIVATE_IN_S:
        raise Invalid("A key is activated within 365 days.", field="activate_in")
    if role == ROOT:
        if len(keyset.roots) > keyset.root_threshold:
            raise Conflict("Another root was added already; retire one first.")
        return
    active = [key for key in keyset.keys if key.role == role and key.status == "active"]
    if len(active) > 1:
        oldest = min(active, key=_age)
        raise Conflict(f"Two {role} keys are active already; retire {oldest.keyid} first.")


def announced(held: Held, key: Key, at: int) -> Keyset:
    """Return the next keyset, in which a key is announced from its `not_before_at` on."""
    return _next(held, at, keys=(*held.keyset.keys, key))


def with_root(held: Held, root: Root, at: int) -> Keyset:
    """Return the next keyset, in which one more root may sign keysets."""
    return _next(held, at, roots=(*held.keyset.roots, root))


def require_retirable(keyset: Keyset, keyid: str, at: int) -> None:
    """Require that a key, or a root, can be retired: somebody else does its work.

    Raises:
        NotFound: the keyset lists no such key.
        Conflict: it is not active, or no other key is in its place yet.
    """
    if keyid in keyset.roots_by_keyid:
        if len(keyset.roots) <= keyset.root_threshold:
            raise Conflict("Add another root first: this one is needed to sign keysets.")
        return
    key = find_key(keyset, keyid)
    if key.status != "active":
        raise Conflict(f"The key {keyid} is {key.status} already.")
    if not any(each.keyid != keyid for each in signing_keys(keyset, key.role, at)):
        raise Conflict(f"No other {key.role} key is active yet; rotate first.")


def retired(held: Held, keyid: str, at: int) -> Keyset:
    """Return the next keyset, in which a key signs no more, or a root is no longer listed.

    What the key signed goes on counting; what would be dated after this instant does not.
    """
    keyset = held.keyset
    if keyid in keyset.roots_by_keyid:
        rest = tuple(root for root in keyset.roots if root.keyid != keyid)
        return _next(held, at, roots=rest)
    ends_at = at + BACKDATE_S
    return _next(held, at, keys=_changed(keyset, keyid, status="retired", ends_at=ends_at))


def require_compromisable(keyset: Keyset, keyid: str) -> Key:
    """Return a key that can be marked as compromised.

    Raises:
        NotFound: the keyset lists no such key.
        Conflict: it is compromised already, or a root.
    """
    if keyid in keyset.roots_by_keyid:
        raise Conflict(
            "A root cannot be marked: rotate the root and build a new release of the router."
        )
    key = find_key(keyset, keyid)
    if key.status == "compromised":
        raise Conflict(f"The key {keyid} is compromised already.")
    return key


def heir(keyset: Keyset, key: Key) -> Key | None:
    """Return the other active key of a role, announced or in use, that takes a key's place."""
    others = [
        each
        for each in keyset.keys
        if each.role == key.role and each.status == "active" and each.keyid != key.keyid
    ]
    return max(others, key=_age, default=None)


def compromised(held: Held, keyid: str, successor: Key, at: int, *, begins_at: int) -> Keyset:
    """Return the next keyset, in which a key never counts, and its successor takes its place.

    The successor is in the keyset, announced or in use, or it is new; it counts from `begins_at`
    on, or from before.
    """
    keys = _changed(held.keyset, keyid, status="compromised")
    if successor.keyid not in held.keyset.by_keyid:
        keys = (*keys, msgspec.structs.replace(successor, not_before_at=begins_at))
    elif successor.not_before_at > begins_at:
        keys = tuple(
            msgspec.structs.replace(key, not_before_at=begins_at)
            if key.keyid == successor.keyid
            else key
            for key in keys
        )
    return _next(held, at, keys=keys)


def _changed(
    keyset: Keyset,
    keyid: str,
    *,
    status: Literal["retired", "compromised"],
    ends_at: int | None = None,
) -> tuple[Key, ...]:
    def change(key: Key) -> Key:
        if key.keyid != keyid:
            return key
        not_after_at = key.not_after_at
        if ends_at is not None:
            # A key that was announced and never signed keeps a second: no window is empty.
            not_after_at = min(not_after_at, max(ends_at, key.not_before_at + 1))
        return msgspec.structs.replace(key, status=status, not_after_at=not_after_at)

    return tuple(change(key) for key in keyset.keys)


def _next(
    held: Held,
    at: int,
    *,
    keys: tuple[Key, ...] | None = None,
    roots: tuple[Root, ...] | None = None,
) -> Keyset:
    return msgspec.structs.replace(
        held.keyset,
        version=held.keyset.version + 1,
        prev_sha256=held.payload_sha256,
        issued_at=at,
        expires_at=at + KEYSET_LIFETIME_S,
        keys=held.keyset.keys if keys is None else keys,
        roots=held.keyset.roots if roots is None else roots,
    )
