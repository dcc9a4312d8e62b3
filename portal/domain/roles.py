"""Who may do what: the roles of members and of staff, and the permissions they give.

Source: "People" of the portal's design.
"""

from typing import Final

# Permissions of a member in an account.
ACCOUNT_READ: Final = "account.read"
ACCOUNT_MANAGE: Final = "account.manage"
MEMBERS_MANAGE: Final = "members.manage"
ORDERS_READ: Final = "orders.read"
ORDERS_PAY: Final = "orders.pay"
ORDERS_PREPARE: Final = "orders.prepare"
DEPLOYMENTS_MANAGE: Final = "deployments.manage"
LICENSES_DOWNLOAD: Final = "licenses.download"
INSTANCES_MANAGE: Final = "instances.manage"
REQUESTS_MAKE: Final = "requests.make"

# Permissions of staff.
STAFF_READ: Final = "staff.read"
NOTES_WRITE: Final = "notes.write"
EMAILS_RESEND: Final = "emails.resend"
REQUESTS_DECIDE: Final = "requests.decide"
ENTITLEMENTS_APPROVE: Final = "entitlements.approve"
HOLDS_MANAGE: Final = "holds.manage"
KEYS_MANAGE: Final = "keys.manage"
PEOPLE_MANAGE: Final = "people.manage"
AUDIT_EXPORT: Final = "audit.export"

ACCOUNT_ROLES: Final[dict[str, frozenset[str]]] = {
    "owner": frozenset(
        {
            ACCOUNT_READ,
            ACCOUNT_MANAGE,
            MEMBERS_MANAGE,
            ORDERS_READ,
            ORDERS_PAY,
            ORDERS_PREPARE,
            DEPLOYMENTS_MANAGE,
            LICENSES_DOWNLOAD,
            INSTANCES_MANAGE,
            REQUESTS_MAKE,
        }
    ),
    "billing": frozenset({ACCOUNT_READ, ORDERS_READ, ORDERS_PAY, ORDERS_PREPARE}),
    "operator": frozenset(
        {
            ACCOUNT_READ,
            ORDERS_PREPARE,
            DEPLOYMENTS_MANAGE,
            LICENSES_DOWNLOAD,
            INSTANCES_MANAGE,
            REQUESTS_MAKE,
        }
    ),
    "viewer": frozenset({ACCOUNT_READ}),
}

STAFF_ROLES: Final[dict[str, frozenset[str]]] = {
    "support": frozenset({STAFF_READ, NOTES_WRITE, EMAILS_RESEND}),
    "approver": frozenset(
        {
            STAFF_READ,
            NOTES_WRITE,
            EMAILS_RESEND,
            REQUESTS_DECIDE,
            ENTITLEMENTS_APPROVE,
            HOLDS_MANAGE,
        }
    ),
    "keys": frozenset({STAFF_READ, KEYS_MANAGE}),
    "admin": frozenset({STAFF_READ, PEOPLE_MANAGE}),
    "auditor": frozenset({STAFF_READ, AUDIT_EXPORT}),
}


def account_permissions(role: str) -> frozenset[str]:
    """Return what a member with this role may do."""
    return ACCOUNT_ROLES[role]


def staff_permissions(roles: frozenset[str]) -> frozenset[str]:
    """Return what a staff person with these roles may do."""
    permitted: set[str] = set()
    for role in roles:
        permitted |= STAFF_ROLES[role]
    return frozenset(permitted)
