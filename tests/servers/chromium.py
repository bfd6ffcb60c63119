"""Chromium, to look at the page with: the machine's, else Debian's package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.packages import run, say
from tests.servers.process import ServerUnavailable

#: Names of the program, as distributions have it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Widths in pixels of the page's two forms, with their heights.
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}


def installed_chromium() -> Path | None:
    """Returns the machine's Chromium, if it has one."""
    named = [os.environ.get("PILLOWD_TEST_CHROMIUM", ""), *PROGRAMS]
    return next((Path(found) for name in named if name and (found := shutil.which(name))), None)


@cache
def find_chromium() -> Path:
    """Returns Chromium; installs Debian's package into the machine if it has none and we are root.

    Raises:
        ServerUnavailable: it cannot be had.
    """
    found = installed_chromium()
    if found is None and shutil.which("apt-get") and os.getuid() == 0:
        say("installing Debian's chromium")
        environ = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "-qq", "update"], env=environ)
        run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", "chromium"], env=environ)
        found = installed_chromium()
    if found is None:
        raise ServerUnavailable("no Chromium. Remedy: `apt-get install chromium`, or PILLOWD_TEST_CHROMIUM")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium and yield playwright's `Browser`; it can reach this machine only.

    Raises:
        ServerUnavailable: it cannot be had.
    """
    from playwright.sync_api import sync_playwright  # the demo runs without the packages of the tests

    program = find_chromium()
    with sync_playwright() as playwright:
        # The sandbox needs a user of its own, and shared memory is small in containers.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=str(program), args=arguments)
        try:
            yield started
        finally:
            started.close()
