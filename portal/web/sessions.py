"""The browser's side of a sign-in: a signed cookie that holds the row's token, nothing else."""

from flask import Flask, Request, g, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_login import UserMixin, login_user, logout_user

from portal.services.sign_ins import SignedIn, load
from portal.web.portal import portal, request_actor


class CookieSessions(SecureCookieSessionInterface):
    """Flask's cookies for people; programs have none, so nothing is opened or saved for them."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Open the cookie of a person's request; a program gets a session that cannot be used."""
        if request.path.startswith("/v1/"):
            return self.make_null_session(app)
        return super().open_session(app, request)


class User(UserMixin):
    """Who is signed in, as Flask-Login wants to have it; its id is the token."""

    def __init__(self, who: SignedIn) -> None:
        self.who = who

    def get_id(self) -> str:
        """Return the token that keys the row."""
        return self.who.token


def start_session(token: str) -> None:
    """Put a new token in the browser's cookie and drop all else that was in it."""
    flashes = session.get("_flashes")
    session.clear()
    session.permanent = True
    if flashes:
        session["_flashes"] = flashes
    with portal().transactions.reading(request_actor()) as context:
        who = load(context, token)
    if who is not None:
        login_user(User(who), remember=False)
        g.signed_in = who


def end_session() -> None:
    """Forget the token."""
    logout_user()
    session.clear()
    g.signed_in = None
