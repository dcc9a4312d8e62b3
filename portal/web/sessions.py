"""The browser's side of a sign-in: a signed cookie that holds the row's token and nothing else."""

from flask import Flask, current_app, g, request, session
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from portal.services.sign_ins import TOUCH_EVERY, SignedIn, load, person_of_token, touch
from portal.web.portal import portal, request_actor


def init_sign_ins(app: Flask) -> None:
    """Set up Flask-Login, which tells the application who is signed in."""
    login = LoginManager()
    login.session_protection = None
    login.user_loader(_load_user)
    # Nobody is given a remember cookie, so none is read: no cookie can have this name. `init_app`
    # would open the session of every request to look for one.
    app.config["REMEMBER_COOKIE_NAME"] = ";"
    app.login_manager = login  # type: ignore[attr-defined]
    app.before_request(_know_who)


def _load_user(token: str) -> "User | None":
    g.had_token = True
    with portal().transactions.reading(request_actor()) as context:
        who = load(context, token)
        if who is None:
            g.person_of_token = person_of_token(context, token)
    return None if who is None else User(who)


def _know_who() -> None:
    """Return who is signed in, and record from time to time that they are still active."""
    view = current_app.view_functions.get(request.endpoint or "")
    # A probe ignores cookies, and answers even without the database.
    if view is None or request.endpoint == "static" or request.blueprint == "health":
        return
    if not current_user.is_authenticated:
        return
    g.signed_in = current_user.who
    transactions = portal().transactions
    if transactions.ports.clock.now() - g.signed_in.last_seen_at > TOUCH_EVERY:
        with transactions.writing(request_actor()) as context:
            touch(context, g.signed_in.token)


class User(UserMixin):  # type: ignore[misc]
    """Who is signed in, in the shape Flask-Login expects; the id is the token."""

    def __init__(self, who: SignedIn) -> None:
        self.who = who

    def get_id(self) -> str:
        """Return the token by which the row is found."""
        return self.who.token


def start_session(token: str) -> None:
    """Put a new token in the browser's cookie and drop everything else in it."""
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
    """Remove the token from the cookie."""
    logout_user()
    session.clear()
    g.signed_in = None
