"""A browser without a screen: follows real links, sends real forms, and checks every page it sees.

Each page must be whole HTML with a title, one main heading, unique ids, labels that name their
fields, forms that carry the CSRF token, no inline script or style, and the headers of every answer.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import Element

import tinyhtml5
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.app import Application

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
Values = Mapping[str, str | list[str] | None]


def elements(root: Element, *names: str) -> Iterator[Element]:
    """Yield the elements of these names, in order."""
    wanted = {f"{XHTML}{name}" for name in names}
    return (each for each in root.iter() if each.tag in wanted)


def text_of(element: Element) -> str:
    """Return what an element says, with white space folded."""
    return " ".join("".join(element.itertext()).split())


@dataclass
class Form:
    """One form of a page, as a person sees it."""

    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    """What would be sent if nothing were touched."""
    names: set[str] = field(default_factory=set)
    buttons: list[tuple[str | None, str, str]] = field(default_factory=list)
    """Name, value and label of each button."""

    def filled(self, values: Values) -> dict[str, list[str]]:
        """Return what is sent with these values typed in.

        Raises:
            AssertionError: the form has no such field.
        """
        sent = dict(self.fields)
        for name, value in values.items():
            assert name in self.names, f"the form at {self.action} has no field {name}"
            if value is None:
                sent.pop(name, None)
            else:
                sent[name] = [value] if isinstance(value, str) else value
        return sent


@dataclass
class Page:
    """One answer, parsed."""

    path: str
    response: TestResponse
    root: Element

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def html(self) -> str:
        return self.response.text

    @property
    def title(self) -> str:
        return text_of(next(elements(self.root, "title")))

    @property
    def heading(self) -> str:
        return text_of(next(elements(self.root, "h1")))

    @property
    def text(self) -> str:
        """What the main part of the page says."""
        return text_of(next(elements(self.root, "main")))

    @property
    def errors(self) -> list[str]:
        """What the error summary lists."""
        for element in elements(self.root, "div"):
            if "govuk-error-summary" in element.get("class", "").split():
                return [text_of(each) for each in elements(element, "li")]
        return []

    @property
    def links(self) -> list[str]:
        return [each.get("href", "") for each in elements(self.root, "a")]

    def forms(self) -> list[Form]:
        """Return the forms of the page."""
        return [self._form(each) for each in elements(self.root, "form")]

    def form(self, action: str | None = None) -> Form:
        """Return the form that goes to `action`, or the main part's first one."""
        if action is not None:
            return next(each for each in self.forms() if urlsplit(each.action).path == action)
        main = next(elements(self.root, "main"))
        posts = (each for each in elements(main, "form") if each.get("method") == "post")
        return self._form(next(posts))

    def _form(self, element: Element) -> Form:
        form = Form(
            urljoin(self.path, element.get("action") or self.path), element.get("method", "get")
        )
        for each in elements(element, "input", "select", "textarea", "button"):
            self._field(form, each)
        return form

    def _field(self, form: Form, element: Element) -> None:
        name, kind = element.get("name"), element.get("type", "")
        if element.tag == f"{XHTML}button":
            form.buttons.append((name, element.get("value", ""), text_of(element)))
            return
        if name is None:
            return
        form.names.add(name)
        if element.tag == f"{XHTML}textarea":
            text = "".join(element.itertext())
            form.fields[name] = [text.removeprefix("\n")]
        elif element.tag == f"{XHTML}select":
            options = list(elements(element, "option"))
            chosen = [each for each in options if each.get("selected") is not None] or options[:1]
            form.fields[name] = [each.get("value", text_of(each)) for each in chosen]
        elif kind == "hidden":
            # A choice of several stands as several hidden fields of one name.
            form.fields.setdefault(name, []).append(element.get("value", ""))
        elif kind in ("checkbox", "radio"):
            if element.get("checked") is not None:
                form.fields.setdefault(name, []).append(element.get("value", "on"))
        elif kind == "hidden":
            form.fields.setdefault(name, []).append(element.get("value", ""))
        else:
            form.fields[name] = [element.get("value", "")]


class Browser(FlaskClient):
    """Flask's test client, which asks both applications of a process."""

    def __init__(self, served: Application) -> None:
        super().__init__(served.pages, served.pages.response_class, use_cookies=True)
        self.served = served

    def run_wsgi_app(self, environ: "WSGIEnvironment", buffered: bool = False) -> Any:
        """Ask the application the path belongs to; sessions and contexts stay those of pages."""
        pages = self.application
        self.application = self.served  # type: ignore[assignment]
        try:
            return super().run_wsgi_app(environ, buffered)
        finally:
            self.application = pages


class Served(Application):
    """The whole application, with clients as Flask makes them."""

    def test_client(self) -> Browser:
        """Return a client without any session."""
        return Browser(self)


class Visitor:
    """Somebody in front of a browser."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.seen: dict[str, int] = {}

    @property
    def served(self) -> Application:
        """The application that is visited."""
        return cast(Browser, self.client).served

    def somebody_else(self) -> "Visitor":
        """Return a visitor of the same application with another browser."""
        return Visitor(Browser(self.served))

    def get(self, path: str, status: int = 200) -> Page:
        """Open a page, following redirects."""
        response = self.client.get(path, follow_redirects=True)
        return self._page(response, status)

    def send(
        self,
        page: Page,
        values: Values | None = None,
        *,
        action: str | None = None,
        button: str | None = None,
        status: int = 200,
    ) -> Page:
        """Fill in a form of the page and send it with its first button, or the one named."""
        form = page.form(action)
        sent = form.filled(values or {})
        for name, value, label in form.buttons:
            if button is None or label == button:
                if name is not None:
                    sent[name] = [value]
                break
        else:
            raise AssertionError(f"no button {button!r} among {form.buttons}")
        response = self.client.post(
            form.action,
            data=sent,
            follow_redirects=True,
            headers={"Referer": f"http://localhost{page.path}"},
        )
        return self._page(response, status)

    def token(self, path: str = "/sign-in") -> str:
        """Return a CSRF token of this browser's session."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.client.get(path).text)
        assert found is not None
        return found.group(1)

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Post fields with a CSRF token, whether or not a page has such a form."""
        pages = (self.client.get(each).text for each in ("/", "/account", "/staff"))
        found = next(
            (
                match
                for match in (
                    re.search(r'name="csrf_token" value="([^"]+)"', each) for each in pages
                )
                if match
            ),
            None,
        )
        token = found.group(1) if found else self.token()
        return self.client.post(path, data={"csrf_token": token, **fields})

    def _page(self, response: TestResponse, status: int) -> Page:
        path = response.request.path
        if response.request.query_string:
            path += f"?{response.request.query_string.decode()}"
        page = Page(path, response, parse(response.text))
        assert response.status_code == status, f"{path}: {response.status} {page.text[:1000]}"
        check_headers(response)
        check_page(page)
        self._check_links(page)
        self.seen[path] = response.status_code
        return page

    def _check_links(self, page: Page) -> None:
        applications = (self.served.pages, self.served.machine)
        adapters = [each.url_map.bind("localhost") for each in applications]
        for link in page.links:
            if link.startswith("#"):
                continue
            parts = urlsplit(urljoin(page.path, link))
            if parts.scheme or parts.netloc or not parts.path.startswith("/"):
                continue
            known = any(each.test(parts.path, method="GET") for each in adapters)
            assert known, f"{page.path} links to {link}, which is no page"


def parse(html: str) -> Element:
    """Parse a page."""
    root: Element = tinyhtml5.parse(html)
    return root


def check_headers(response: TestResponse) -> None:
    """Check what every answer carries."""
    for name, value in HEADERS.items():
        assert response.headers.get(name) == value, (response.request.path, name)
    policy = response.headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert len(response.headers["Request-Id"]) == 24
    assert "Access-Control-Allow-Origin" not in response.headers


def check_page(page: Page) -> None:
    """Check what every page must be."""
    where, root = page.path, page.root
    assert page.html.lstrip().lower().startswith("<!doctype html>"), where
    assert root.get("lang") == "en", where
    assert page.title.strip(), where
    assert len(list(elements(root, "h1"))) == 1, where
    ids = [each.get("id") for each in root.iter() if each.get("id") is not None]
    assert len(ids) == len(set(ids)), (where, [each for each in ids if ids.count(each) > 1])
    known = set(ids)
    for element in root.iter():
        _check_element(where, element, known)
    for form in elements(root, "form"):
        assert form.get("method") in ("get", "post"), where
        if form.get("method") == "post":
            tokens = [each for each in elements(form, "input") if each.get("name") == "csrf_token"]
            assert len(tokens) == 1, f"{where}: a form without its CSRF token"
    _check_fields(where, root)
    if page.errors:
        assert page.title.startswith("Error: "), where
        assert page.status == 400, where


def _check_element(where: str, element: Element, known: set[str | None]) -> None:
    for name, value in element.attrib.items():
        assert not name.startswith("on"), f"{where}: {name}"
        assert name != "style", f"{where}: an inline style on {element.tag}"
        if name in ("for", "aria-describedby", "aria-labelledby", "aria-controls"):
            for part in value.split():
                assert part in known, f"{where}: {name} names {part}, which is not there"
    if element.tag == f"{XHTML}script":
        assert element.get("src"), f"{where}: an inline script"
    if element.tag == f"{XHTML}img":
        assert element.get("alt") is not None, f"{where}: an image without words"
        assert not element.get("src", "").startswith("data:"), where
    assert element.tag != f"{XHTML}style", where


def _check_fields(where: str, root: Element) -> None:
    labeled = {each.get("for") for each in elements(root, "label")}
    wrapped = {
        id(each)
        for label in elements(root, "label")
        for each in elements(label, "input", "select", "textarea")
    }
    for each in elements(root, "input", "select", "textarea"):
        if each.get("type") in ("hidden", "submit"):
            continue
        named = each.get("id") in labeled or id(each) in wrapped or each.get("aria-label")
        assert named, f"{where}: the field {each.get('name')} has no label"


def all_text(pages: Iterable[Page]) -> str:
    """Return the text of several pages."""
    return "\n".join(page.text for page in pages)
