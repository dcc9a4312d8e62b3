"""Staff: the vendor's people, their roles, and what they may do."""

from collections import defaultdict

from sqlalchemy import select

from portal.db.people import Person, StaffRole, person_by_email, staff_roles
from portal.domain.email_addresses import parse_email
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound
from portal.domain.roles import STAFF_ROLES, staff_permissions
from portal.services.accounts import add_person
from portal.services.audit import record
from portal.services.context import Context
from portal.services.email_tokens import SET_PASSWORD, send_token


def create_staff(
    context: Context,
    *,
    email: str,
    roles: frozenset[str],
    name: str | None = None,
    password_hash: str | None = None,
) -> Person:
    """Create a staff person. Without a password, they are mailed a link to set one.

    Raises:
        Invalid: there is no role or an unknown one, or the address cannot be used.
        Conflict: the address is in use.
    """
    unknown = sorted(roles - set(STAFF_ROLES))
    if unknown or not roles:
        raise Invalid(
            f"Unknown role {', '.join(unknown) or '(none)'}; choose from {', '.join(STAFF_ROLES)}.",
            field="role",
        )
    address = parse_email(email)
    if person_by_email(context.session, address.text) is not None:
        raise Conflict(f"{address.text} is already in use.")
    person = add_person(context, "staff", address, name or address.text.partition("@")[0])
    person.email_confirmed_at = context.at
    for role in sorted(roles):
        context.session.add(StaffRole(person_id=person.id, role=role, granted_at=context.at))
    record(context, "staff.created", "person", person.id, roles=sorted(roles))
    if password_hash is None:
        send_token(context, person, SET_PASSWORD)
    else:
        person.password_hash = password_hash
        person.password_changed_at = context.at
    context.session.flush()
    return person


def find_staff(context: Context, text: str) -> Person:
    """Return the staff person with this id or address.

    Raises:
        NotFound: there is none.
    """
    person = context.session.get(Person, text) or person_by_email(context.session, text)
    if person is None or person.kind != "staff" or person.disabled_at is not None:
        raise NotFound(f"There is no staff person {text}; `portal staff list` shows all.")
    return person


def require_staff_permission(context: Context, person: Person, permission: str) -> None:
    """Require that a staff person may do this.

    Raises:
        Forbidden: none of their roles has the permission.
    """
    if permission not in staff_permissions(staff_roles(context.session, person.id)):
        raise Forbidden(f"{person.email} has no role that permits {permission}.")


def list_staff(context: Context) -> list[tuple[Person, frozenset[str]]]:
    """Return all staff with their roles, by address."""
    people = context.session.scalars(
        select(Person).where(Person.kind == "staff").order_by(Person.email)
    )
    roles: defaultdict[str, set[str]] = defaultdict(set)
    for row in context.session.scalars(select(StaffRole)):
        roles[row.person_id].add(row.role)
    return [(person, frozenset(roles[person.id])) for person in people]
