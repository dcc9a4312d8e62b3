"""Chromium as tests use it: what a page says on its console, what it weighs, what axe finds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLD_PAGE_BYTES = 100_000
COLD_PAGE_REQUESTS = 12


@dataclass
class Visit:
    """One window with nothing in its cache, and what was noticed in it."""

    context: BrowserContext
    page: Page
    messages: list[str] = field(default_factory=list)
    """What pages said on the console, and errors of their scripts."""
    sizes: list[int] = field(default_factory=list)
    """Bytes over the wire, one number a request."""


@contextmanager
def visiting(chromium: Browser, **options: Any) -> Iterator[Visit]:
    """Open a window; when the block ends, no page in it may have complained."""
    # Colors that fade from one scheme to the next would be measured halfway.
    context = chromium.new_context(
        **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
    )
    visit = Visit(context, context.new_page())
    context.on("console", lambda message: visit.messages.append(message.text))
    context.on("weberror", lambda error: visit.messages.append(str(error.error)))
    context.on("requestfinished", lambda request: visit.sizes.append(wire_bytes(request)))
    try:
        yield visit
    finally:
        context.close()
    assert visit.messages == []


def wire_bytes(request: Request) -> int:
    """Return what an answer weighed, headers and all."""
    sizes = request.sizes()
    return int(sizes["responseBodySize"] + sizes["responseHeadersSize"])


def open_page(chromium: Browser, url: str, **options: Any) -> Visit:
    """Open a page in a window of its own; whoever calls closes it."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce", **options
    )
    visit = Visit(context, context.new_page())
    visit.page.on("console", lambda message: visit.messages.append(message.text))
    visit.page.on("pageerror", lambda error: visit.messages.append(str(error)))
    visit.page.on("requestfinished", lambda request: visit.sizes.append(wire_bytes(request)))
    answer = visit.page.goto(url)
    assert answer is not None
    assert answer.status == 200
    return visit


def violations(page: Page, rules: Sequence[str] = RULES) -> list[tuple[str, list[str]]]:
    """Return what axe finds: rule and elements. `rules` are tags, or the ids of rules."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    found = page.evaluate(
        """async (rules) => {
            const options = { runOnly: rules, resultTypes: ["violations"] };
            const { violations } = await axe.run(options);
            return violations.map((one) => [one.id, one.nodes.map((node) => node.html)]);
        }""",
        list(rules),
    )
    return [(rule, elements) for rule, elements in found]
