"""The form of each act on a license: what is said of it beside its reason."""

from collections.abc import Mapping
from typing import Final, Self

from msgspec.structs import asdict
from wtforms import (
    BooleanField,
    IntegerField,
    RadioField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, Optional

from licensing.names import FEATURES
from portal.domain.catalog import CATALOG, DAY_S
from portal.domain.errors import Conflict
from portal.domain.requests import MAX_TEXT, MAX_TOKENS
from portal.domain.standing import COMMERCE_CAUSES, HoldCause
from portal.domain.terms import Mode
from portal.domain.words import FEATURE_NAMES, LIMIT_NAMES, MODE_NAMES
from portal.services.acts.amend import Amend
from portal.services.acts.end import End
from portal.services.acts.kinds import Params
from portal.services.acts.reinstate import Reinstate
from portal.services.acts.renew import Renew
from portal.services.acts.replace import Replace
from portal.services.acts.replace_base import ReplaceBase
from portal.services.acts.revoke import Revoke
from portal.services.acts.suspend import Suspend
from portal.services.acts.top_up import TopUp
from portal.services.license_desk import LicenseDesk
from portal.web.forms import Between, PortalForm
from portal.web.words import HOLD_CAUSES

OWN_FIELDS: Final = ("reason", "csrf_token")
NUMBER: Final = [Optional(), Between(1, MAX_TOKENS, "Enter a number from 1 up.")]


class ActForm(PortalForm):
    """An act's reason, and in the kinds below what else it needs."""

    reason = TextAreaField(
        "Reason", [InputRequired("Say why. It stays in the audit trail."), Length(max=MAX_TEXT)]
    )

    desk: LicenseDesk

    @classmethod
    def at(cls, desk: LicenseDesk) -> Self:
        """Fill the form for a license from the request.

        Raises:
            Conflict: the license has nothing that the act could be done to.
        """
        form = cls.bound()
        form.desk = desk
        form.offer()
        return form

    def offer(self) -> None:
        """Fill in the choices, and what is true now."""

    def params(self) -> Params:
        """Return what is said of the act."""
        raise NotImplementedError

    def subject(self) -> str:
        """Return the id of what the act is done to."""
        return self.desk.license.id


class RevokeForm(ActForm):
    """Nothing but the reason."""

    def params(self) -> Params:
        """Return the parameters of *Revoke*."""
        return Revoke()


class SuspendForm(ActForm):
    """What the hold is for."""

    cause = RadioField("What is it for?", [InputRequired("Choose what it is for.")])

    def offer(self) -> None:
        """Offer the causes that no hold is open for."""
        taken = COMMERCE_CAUSES | {each.cause for each in self.desk.holds}
        self.cause.choices = {
            each.value: HOLD_CAUSES[each].capitalize() for each in HoldCause if each not in taken
        }

    def params(self) -> Params:
        """Return the parameters of *Suspend*."""
        return Suspend(cause=HoldCause(self.cause.data))


class ReinstateForm(ActForm):
    """Which hold is lifted."""

    hold_id = RadioField("Which hold?", [InputRequired("Choose the hold to lift.")])

    def offer(self) -> None:
        """Offer the holds that a person may lift."""
        self.hold_id.choices = {
            each.id: f"For {HOLD_CAUSES[each.cause]}: {each.reason}" for each in self.desk.liftable
        }

    def params(self) -> Params:
        """Return the parameters of *Reinstate*."""
        return Reinstate(hold_id=self.hold_id.data)


class RenewForm(ActForm):
    """How long it goes on."""

    days = IntegerField("Length in days", [Optional(), Between(1, 5 * 366, "Enter 1 to 1,830.")])

    def params(self) -> Params:
        """Return the parameters of *Renew*."""
        return Renew(term_s=None if self.days.data is None else self.days.data * DAY_S)


class TopUpForm(ActForm):
    """Which pack is added."""

    sku = RadioField(
        "Which pack?",
        [InputRequired("Choose a pack.")],
        choices={name: each.title for name, each in CATALOG.items() if each.is_pack},
    )

    def params(self) -> Params:
        """Return the parameters of *Top up*."""
        return TopUp(sku=self.sku.data)


class ReplaceForm(ActForm):
    """What is new, and how soon the old file stops counting."""

    fingerprints = StringField("New fingerprints")
    at_once = BooleanField("The old file stops counting at once")

    def params(self) -> Params:
        """Return the parameters of *Replace*."""
        words = tuple((self.fingerprints.data or "").split())
        return Replace(fingerprints=words, at_once=self.at_once.data)


class ReplaceBaseForm(ActForm):
    """Which approved base takes over."""

    entitlement_id = RadioField("Which base starts?", [InputRequired("Choose the base.")])

    def offer(self) -> None:
        """Offer the approved bases."""
        self.entitlement_id.choices = {
            each.id: f"{CATALOG[each.terms.sku].title}: {each.reason}"
            for each in self.desk.startable
        }

    def params(self) -> Params:
        """Return the parameters of *Replace the base*."""
        return ReplaceBase(entitlement_id=self.entitlement_id.data)


class EndForm(ActForm):
    """Which entitlement is taken back."""

    entitlement_id = RadioField("Which entitlement ends?", [InputRequired("Choose one.")])

    def offer(self) -> None:
        """Offer what is live."""
        self.entitlement_id.choices = {
            each.id: f"{CATALOG[each.terms.sku].title}: {each.reason}" for each in self.desk.endable
        }

    def subject(self) -> str:
        """Return the entitlement that was chosen among the line's own."""
        return str(self.entitlement_id.data)

    def params(self) -> Params:
        """Return the parameters of *End*."""
        return End()


class AmendForm(ActForm):
    """The live base's terms, as they are and as they shall be."""

    mode = RadioField("How it runs", choices=MODE_NAMES)
    features = SelectMultipleField(
        "Features", choices={name: FEATURE_NAMES[name] for name in FEATURES}
    )
    max_instances = IntegerField(LIMIT_NAMES["max_instances"], NUMBER)
    max_concurrency = IntegerField(LIMIT_NAMES["max_concurrency"], NUMBER)
    max_seats = IntegerField(LIMIT_NAMES["max_seats"], NUMBER)
    tokens_per_window = IntegerField(LIMIT_NAMES["tokens_per_window"], NUMBER)
    fingerprints = StringField("Fingerprints")

    def offer(self) -> None:
        """Show the terms as they are.

        Raises:
            Conflict: no base is live.
        """
        base = self.desk.line.base
        if base is None:
            raise Conflict("No base of this license is live; there are no terms to amend.")
        if self.is_submitted():
            return
        self.mode.data = base.terms.mode.value
        self.features.data = list(base.terms.features)
        self.fingerprints.data = " ".join(base.terms.fingerprints)
        for name, value in asdict(base.terms.limits).items():
            if name in self:
                self[name].data = value

    def params(self) -> Params:
        """Return what is otherwise than the live base has it; an empty limit stays as it is."""
        base = self.desk.line.base
        if base is None:
            return Amend()
        features = tuple(sorted(self.features.data or ()))
        words = tuple(sorted(set((self.fingerprints.data or "").split())))
        mode = Mode(self.mode.data)
        limits = {
            name: self[name].data
            for name, value in asdict(base.terms.limits).items()
            if name in self and self[name].data not in (None, value)
        }
        return Amend(
            features=None if features == base.terms.features else features,
            limits=limits or None,
            fingerprints=None if words == base.terms.fingerprints else words,
            mode=None if mode is base.terms.mode else mode,
        )


FORMS: Final[Mapping[str, type[ActForm]]] = {
    "renew": RenewForm,
    "amend": AmendForm,
    "top-up": TopUpForm,
    "replace": ReplaceForm,
    "replace-base": ReplaceBaseForm,
    "suspend": SuspendForm,
    "reinstate": ReinstateForm,
    "end": EndForm,
    "revoke": RevokeForm,
}
FIELDS: Final = {
    "feature": "features",
    "limit": "max_instances",
    "limits": "max_instances",
    "fingerprint": "fingerprints",
    "entitlement": "entitlement_id",
    "term": "days",
}
"""What the acts call a field, and what the forms do."""
