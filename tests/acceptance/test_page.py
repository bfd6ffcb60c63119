"""The page in a browser: it shows what happens within seconds, and needs nothing but the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.acceptance.process import Pillowd, couchdb
from tests.conftest import ending_without_server
from tests.servers.chromium import SIZES, browser
from tests.servers.couch_client import CouchDatabase
from tests.servers.postgres import Postgres
from tests.servers.process import free_port

#: How soon a killed target shows, and a restarted daemon.
SHOWN_SECONDS, BACK_SECONDS = 3.0, 5.0


#: Rows that change every second, for how long they are measured, and the most script they may take.
ROWS, MEASURED_SECONDS, MOST_SCRIPT = 200, 30.0, 0.050
#: Lines of ten minutes, as if the page had been open for so long.
FULL = """async () => {
  const { pillows } = await import("/assets/main.js");
  for (let second = 600; second > 0; second--) pillows.note(Date.now() / 1000 - second);
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with ending_without_server():
        opened = browser()
        started = opened.__enter__()
    yield started
    opened.__exit__(None, None, None)


class Watched:
    """A tab, and all that it asked for and complained of."""

    def __init__(self, chromium: Any, url: str) -> None:
        width, height = SIZES["wide"]
        self.tab = chromium.new_page(viewport={"width": width, "height": height})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)

    def wait(self, script: str, seconds: float) -> float:
        """Wait until an expression is true. Return the seconds that it took."""
        began = time.monotonic()
        # Not `wait_for_function`: it evaluates in the page, whose policy forbids that.
        while not self.tab.evaluate(f"Boolean({script})"):
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not so after {seconds} s: {script}\n{self.tab.inner_text('body')}")
            self.tab.wait_for_timeout(50)
        return time.monotonic() - began

    def row(self, pillow: str) -> str:
        """An expression: the row of a pillow."""
        is_it = f"row.querySelector('.name').textContent === '{pillow}'"
        return f"[...document.querySelectorAll('#rows tr')].find(row => {is_it})"


@pytest.fixture
def target(postgres_server: Callable[..., Postgres]) -> Postgres:
    return postgres_server()


@pytest.fixture
def daemon(tmp_path: Path, couch: Any, couch_db: CouchDatabase, target: Postgres) -> Iterator[Pillowd]:
    source = {"connection": "couch", "database": couch_db.name}
    built = Pillowd(
        tmp_path,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "warehouse": {"type": "postgres", "dsn": target.dsn},
            "file": {"type": "sqlite", "path": str(tmp_path / "copy.sqlite")},
        },
        pillows={
            "reports": {"source": source, "transport": [{"connection": "warehouse", "table": "reports"}]},
            "copy": {"source": source, "transport": [{"connection": "file", "table": "copy"}]},
        },
        daemon={"http": {"listen": f"127.0.0.1:{free_port()}"}},
    )
    with built:
        yield built


def test_the_page_shows_what_happens(
    chromium: Any, daemon: Pillowd, couch_db: CouchDatabase, target: Postgres
) -> None:
    couch_db.bulk({"_id": f"d{number}", "n": number} for number in range(200))
    url = f"http://{daemon.settings['daemon']['http']['listen']}"
    daemon.start()
    page = Watched(chromium, url)
    page.wait("document.getElementById('verdict').textContent === 'Both pillows are live'", 30)
    page.wait("document.querySelectorAll('#rows svg.line path').length === 12", 5)
    check_access(page.tab)

    page.tab.keyboard.press("j")
    page.tab.keyboard.press("Enter")
    page.wait("document.querySelector('#drawer:not([hidden]) .uplot canvas')", 5)
    assert "pillowd tap copy@couch/" in page.tab.inner_text("#drawer")
    check_access(page.tab)
    page.tab.keyboard.press("Escape")
    page.wait("document.getElementById('drawer').hidden", 5)
    page.tab.keyboard.press("/")
    page.tab.keyboard.type("report")
    page.wait("document.querySelectorAll('#rows tr').length === 1", 5)
    page.tab.keyboard.press("Escape")

    target.kill()
    couch_db.put("late", {"n": 1})
    is_shown = f"{page.row('reports')}?.dataset.state === 'backing-off'"
    seconds = page.wait(
        f"{is_shown} && {page.row('reports')}.querySelector('.c-reason').textContent", SHOWN_SECONDS
    )
    assert "warehouse" in page.tab.evaluate(f"{page.row('reports')}.querySelector('.c-reason').textContent")
    assert "reports" in page.tab.inner_text("#rows tr:first-child .name"), "the worst comes first"
    assert page.tab.evaluate(f"{page.row('copy')}.dataset.state") == "live"
    print(f"\nkilled target shown after {seconds:.1f} s")
    check_access(page.tab)

    assert page.complaints == []
    target.start()
    page.wait(f"{page.row('reports')}.dataset.state === 'live'", 60)
    assert daemon.stop() == 0
    page.wait("document.body.dataset.connection === 'lost' && !document.getElementById('lost').hidden", 10)
    daemon.start()
    seconds = page.wait("document.body.dataset.connection === 'live'", BACK_SECONDS)
    print(f"restarted daemon shown after {seconds:.1f} s")
    page.wait("document.getElementById('verdict').textContent === 'Both pillows are live'", 30)

    assert {urlsplit(asked).netloc for asked in page.asked} == {urlsplit(url).netloc}
    # What a browser itself says of a server that is away; nothing else was said.
    assert {text for text in page.complaints if "ERR_" not in text} == set()


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_two_hundred_rows_cost_the_browser_little(
    chromium: Any, tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    source = {"connection": "couch", "database": couch_db.name}
    daemon = Pillowd(
        tmp_path,
        connections={"couch": couchdb(couch.url, couch.auth), "nowhere": {"type": "null"}},
        pillows={
            f"p{number:03}": {"source": source, "transport": [{"connection": "nowhere"}]}
            for number in range(ROWS)
        },
        daemon={"http": {"listen": f"127.0.0.1:{free_port()}"}},
    )
    with daemon:
        daemon.start()
        page = Watched(chromium, f"http://{daemon.settings['daemon']['http']['listen']}")
        page.wait(f"document.getElementById('verdict').textContent === 'All {ROWS} pillows are live'", 120)
        page.tab.evaluate(FULL)
        measured = page.tab.context.new_cdp_session(page.tab)
        measured.send("Performance.enable")

        def script_seconds() -> float:
            metrics = measured.send("Performance.getMetrics")["metrics"]
            return float(next(each["value"] for each in metrics if each["name"] == "ScriptDuration"))

        began, used, number = time.monotonic(), script_seconds(), 0
        while time.monotonic() - began < MEASURED_SECONDS:  # every row changes every second
            couch_db.put(f"d{number}", n=number)
            number += 1
            page.tab.wait_for_timeout(100)
        share = (script_seconds() - used) / (time.monotonic() - began)
        assert page.complaints == []
    print(f"\n{ROWS} rows: {share * 1000:.1f} ms of script per second")
    assert share <= MOST_SCRIPT


def check_access(tab: Any) -> None:
    """Check the page by axe-core: nothing serious, in light and dark, wide and narrow."""
    for scheme, (width, height) in (("light", SIZES["wide"]), ("dark", SIZES["narrow"])):
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size({"width": width, "height": height})
        found = Axe().run(tab).response["violations"]
        serious = [
            (each["id"], node["html"][:200], node["failureSummary"])
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
        assert serious == [], (scheme, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    width, height = SIZES["wide"]
    tab.set_viewport_size({"width": width, "height": height})
