"""The names of recorded acts on pages."""

from typing import Final

ACTS: Final = {
    "act.declined": "Act declined",
    "act.done": "Act done",
    "act.lapsed": "Act lapsed without a second person",
    "act.returned": "Act returned to its first person",
    "act.submitted": "Act submitted for a second person",
    "account.created": "Account created",
    "bundle.published": "Revocation bundle published",
    "bundle.entry-kept": "Entry kept in the bundle against the database",
    "cause.refused": "Terms not sealed: no cause proved",
    "cause.sealed": "Terms sealed",
    "custody.reviewed": "Refusals reviewed",
    "deployment.created": "Deployment created",
    "email.resent": "E-mail sent again",
    "enrollment-code.created": "Enrollment code created",
    "enrollment-code.revoked": "Enrollment code revoked",
    "entitlement.adopted": "Terms from before custody adopted",
    "entitlement.amended": "Terms amended",
    "entitlement.approved": "Terms approved",
    "entitlement.ended": "Terms ended",
    "entitlement.proposed": "Terms proposed",
    "entitlement.renewed": "Terms renewed",
    "entitlement.taken-back": "Tokens taken back",
    "hold.lift-refused": "Lifting a hold not sealed",
    "hold.lift-sealed": "Lifting a hold sealed",
    "hold.lifted": "Hold lifted",
    "hold.opened": "Hold opened",
    "instance.chain-adopted": "Lease chain continued after a database restore",
    "instance.courier-answered": "Lease issued by courier",
    "instance.enrolled": "Router enrolled",
    "instance.fork-noted": "Lease chain forked",
    "instance.released": "Lease released",
    "instance.retired": "Router retired",
    "key-change.finished": "Key change finished",
    "key.added": "Key added",
    "key.resumed": "Key signs again",
    "key.stopped": "Key stopped signing",
    "keyset.intended": "Keyset computed",
    "keyset.published": "Keyset published",
    "license.downloaded": "License file downloaded",
    "license.intended": "License prepared",
    "license.intent-taken-back": "License preparation taken back",
    "license.issued": "License issued",
    "license.marked-installed": "License marked as installed",
    "license.refused": "License not signed",
    "license.requested": "License requested",
    "licenses.checked": "Licenses and bundles checked",
    "license.revoked": "License revoked",
    "line.budget-short": "Budget too small for what was taken back",
    "person.email-confirmed": "Address confirmed",
    "person.factor-removed": "Second factor removed",
    "person.factor-set-up": "Second factor set up",
    "person.password-changed": "Password changed",
    "person.recovery-code-used": "Recovery code used",
    "person.reminders-resumed": "Reminders switched on",
    "person.reminders-stopped": "Reminders declined",
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


KEY_ROLE_NAMES: Final = {
    "license": "License keys sign licenses",
    "lease": "Lease keys sign leases",
    "revocation": "Revocation keys sign bundles",
    "root": "Root keys sign keysets",
}
KEY_CHANGE_NAMES: Final = {
    "rotate-key": "Announce the next key",
    "retire-key": "Retire a key",
    "compromise-key": "Mark a key as compromised",
}
NEXT_STEPS: Final = {
    "nothing": "Nothing",
    "rotate": "Rotate: announce the next key",
    "bring": "Bring it to every process that signs with it",
    "wait": "Wait until every router has the keyset",
    "retire": "Retire it: every router has the keyset",
    "decide": "Approve or decline the compromise",
}
ACTORS: Final = {"staff": "staff", "system": "the portal"}


def actor_name(kind: str) -> str | None:
    """Return what customers read in place of an actor's name; None for other kinds of actor."""
    return ACTORS.get(kind)


def act_name(action: str) -> str:
    """Return an act as people read it; an unknown act is shown by its code."""
    return ACTS.get(action, action)
