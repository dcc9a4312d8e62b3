"""The names of recorded acts on pages."""

from typing import Final

ACTS: Final = {
    "account.created": "Account created",
    "bundle.published": "Revocation bundle published",
    "deployment.created": "Deployment created",
    "enrollment-code.created": "Enrollment code created",
    "enrollment-code.revoked": "Enrollment code revoked",
    "entitlement.approved": "Terms approved",
    "entitlement.ended": "Terms ended",
    "entitlement.proposed": "Terms proposed",
    "instance.chain-adopted": "Lease chain continued after a database restore",
    "instance.courier-answered": "Lease issued by courier",
    "instance.enrolled": "Router enrolled",
    "instance.fork-noted": "Lease chain forked",
    "instance.released": "Lease released",
    "instance.retired": "Router retired",
    "keyset.published": "Keyset published",
    "license.downloaded": "License file downloaded",
    "license.intended": "License prepared",
    "license.issued": "License issued",
    "license.marked-installed": "License marked as installed",
    "license.requested": "License requested",
    "person.email-confirmed": "Address confirmed",
    "person.factor-removed": "Second factor removed",
    "person.factor-set-up": "Second factor set up",
    "person.password-changed": "Password changed",
    "person.recovery-code-used": "Recovery code used",
    "person.reset-requested": "Password reset requested",
    "person.sign-in-ended": "Sign-in ended",
    "person.signed-in": "Signed in",
    "person.signed-out": "Signed out",
    "person.signed-up": "Signed up",
    "request.approved": "Request approved",
    "request.declined": "Request declined",
    "request.granted-by-policy": "Request granted by policy",
    "request.made": "Request sent",
    "request.message-posted": "Message on a request",
    "request.taken": "Request taken",
    "request.withdrawn": "Request withdrawn",
    "staff.created": "Staff person added",
}


ACTORS: Final = {"staff": "staff", "system": "the portal"}


def actor_name(kind: str) -> str | None:
    """Return what customers read in place of an actor's name; None for other kinds of actor."""
    return ACTORS.get(kind)


def act_name(action: str) -> str:
    """Return an act as people read it; an unknown act is shown by its code."""
    return ACTS.get(action, action)
