"""The system's Chromium, headless, driven by Playwright; and the pages of a world in it."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from publisher.page.memory import PageMemory
from publisher.page.targets import PageDirectory
from publisher.page.writer import write_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from publisher.page.writer import PageReport
    from tests.support.page.world import PageWorld

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the system's Chromium; nothing is downloaded."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert program is not None, "Chromium is missing; ci/install-system --tests installs it"
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, and /dev/shm is small in containers
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def write(world: PageWorld, where: Path) -> PageReport:
    """Write the pages of a world into ``where/page``, remembering them beside it."""
    where.mkdir(parents=True, exist_ok=True)
    with PageMemory(where / "page.sqlite") as memory:
        report = write_page(PageDirectory(where / "page"), memory, world.content, time.monotonic)
    assert report.error is None, report.error
    return report
