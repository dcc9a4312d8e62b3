"""The sample pages, which hold every macro, in Chromium: accessible, within bounds, silent.

Pages of the portal itself are walked elsewhere; here a broken macro shows before any page uses it.
"""

import threading
from collections.abc import Iterator

import pytest
from flask import Response
from playwright.sync_api import Browser
from werkzeug.serving import make_server

from devtools.assets.sample.app import create_sample
from portal.web.headers import CONTENT_SECURITY_POLICY
from tests.browser.browsing import COLD_PAGE_BYTES, COLD_PAGE_REQUESTS, open_page, violations

pytestmark = [pytest.mark.xdist_group("site-journeys"), pytest.mark.slow]
PAGES = [
    "/",
    "/plans",
    "/account",
    "/staff",
    "/form",
    "/form?errors=1",
    "/sign-up",
    "/errors/404",
    "/errors/csrf",
]


@pytest.fixture(scope="module")
def samples() -> Iterator[str]:
    """Serve the sample pages with the portal's policy."""
    app = create_sample()

    @app.after_request
    def policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.asvs("3.4.3")
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_light_accessible_and_fits(chromium: Browser, samples: str, path: str) -> None:
    visit = open_page(chromium, samples + path)
    page = visit.page
    assert len(visit.sizes) <= COLD_PAGE_REQUESTS
    assert sum(visit.sizes) <= COLD_PAGE_BYTES
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, ["color-contrast"]) == []
    # 640 pixels are what a window of 1280 has at 200 % zoom.
    for width in (640, 360):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    assert visit.messages == []
    page.context.close()


def test_copy_puts_the_text_on_the_clipboard(chromium: Browser, samples: str) -> None:
    visit = open_page(
        chromium, samples + "/account", permissions=["clipboard-read", "clipboard-write"]
    )
    visit.page.get_by_role("button", name="Copy license id").click()
    assert visit.page.evaluate("navigator.clipboard.readText()").startswith("lic_")
    assert visit.page.get_by_role("button", name="Copied license id").is_visible()
    visit.page.context.close()


def test_local_time_stands_beside_utc(chromium: Browser, samples: str) -> None:
    visit = open_page(chromium, samples + "/account", timezone_id="Asia/Tokyo", locale="en-GB")
    beside = visit.page.locator("dd [data-local-time]").first
    assert "24 Nov 2026, 05:12 your time" in beside.inner_text()
    visit.page.context.close()


def test_a_wrong_clock_does_not_bend_relative_times(chromium: Browser, samples: str) -> None:
    visit = open_page(chromium, samples + "/account")
    # The sample's clock stands in 2026, whatever this machine's says.
    assert visit.page.get_by_text("in 2 days").first.is_visible()
    visit.page.context.close()


def test_without_script_nothing_dead_is_shown(chromium: Browser, samples: str) -> None:
    visit = open_page(chromium, samples + "/account", java_script_enabled=False)
    assert visit.page.locator("[data-copy]:visible").count() == 0
    assert visit.page.get_by_text("26 Nov 2026, 20:12:07 UTC").first.is_visible()
    visit.page.context.close()


def test_the_error_summary_has_focus_and_leads_to_the_field(
    chromium: Browser, samples: str
) -> None:
    visit = open_page(chromium, samples + "/form?errors=1")
    page = visit.page
    assert page.title().startswith("Error: ")
    assert page.evaluate("document.activeElement.className") == "govuk-error-summary"
    page.get_by_role("link", name="Enter your work e-mail address").click()
    assert page.evaluate("document.activeElement.name") == "email"
    page.context.close()


def test_the_first_tab_offers_to_skip(chromium: Browser, samples: str) -> None:
    page = open_page(chromium, samples + "/account").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.context.close()


def test_every_stop_of_the_keyboard_is_visible(chromium: Browser, samples: str) -> None:
    page = open_page(chromium, samples + "/form").page
    stops = page.locator("a[href], button:visible, input:visible, select, textarea").count()
    for _ in range(stops):
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => {
                const here = document.activeElement;
                const style = getComputedStyle(here);
                return [here.outerHTML.slice(0, 80), style.outlineStyle, style.outlineWidth];
            }"""
        )
        if style[0].startswith("<body"):
            break
        assert style[1] == "solid", style
        assert float(style[2].removesuffix("px")) >= 2, style
    page.context.close()


def test_forced_colors_keep_borders_of_buttons(chromium: Browser, samples: str) -> None:
    page = open_page(chromium, samples + "/account", forced_colors="active").page
    width = page.locator(".button").first.evaluate("e => getComputedStyle(e).borderTopWidth")
    assert width != "0px"
    page.context.close()


def test_print_leaves_out_navigation(chromium: Browser, samples: str) -> None:
    page = open_page(chromium, samples + "/account").page
    page.emulate_media(media="print")
    assert not page.locator("header").is_visible()
    assert not page.locator("nav.nav").is_visible()
    assert page.get_by_role("heading", name="Northwind production").is_visible()
    page.context.close()
