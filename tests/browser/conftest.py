"""A browser, and a portal for it.

Both end with the package: while Playwright runs, its event loop is this thread's, and nothing else
of the process could run one.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.site import Site, running_site


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The portal as `make run` runs it: web and worker, processes of their own."""
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running
