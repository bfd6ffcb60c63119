"""Take the pictures of the page, with pillows that are made up. `make docs` runs it.

The page itself is the one of the package, in a real browser; only what the daemon would say is written here,
in the form in which it says it. The pictures are not kept in the repository, so they cannot be out of date.
Without Chromium a text stands in their place.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import msgspec

from daemon.errors import NotFoundError
from daemon.http.endpoint import HEADERS
from daemon.http.routes.page import get_asset
from daemon.streams.notable_events import NotableEvent
from daemon.streams.senders import format_message
from daemon.supervision.state_history import StateChange
from daemon.supervision.transport_facts import TransportStatus
from pillows.runtime.status import State, TailStatus
from tests.servers.chromium import SIZES, browser
from tests.servers.process import ServerUnavailable

IMAGES = Path(__file__).parent / "how-to" / "images"
NOW = time.time()
DAY = 86_400.0
REFUSED = (
    'warehouse: connection to server at "10.20.3.7", port 5432 failed: Connection refused. '
    "Remedy: start the server, or correct the connection's `dsn`"
)
RECREATED = (
    "the database `couch/referrals` was deleted and created again: it is another one now. "
    "Remedy: `pillowd checkpoint reset referrals@couch/referrals` reads it from the beginning"
)
#: What a browser keeps of the last ten minutes, as if it had been open for so long.
HISTORY = """async () => {
  const { pillows } = await import("/assets/main.js");
  const all = [...pillows.byKey.values()].flatMap(({ lag, rate }) => [lag, rate]);
  for (const points of [pillows.times, ...all]) points.length = 0;
  const now = Date.now() / 1000, until = 590;
  for (let second = until; second >= 0; second--) {
    pillows.note(now - second);
    const at = pillows.times.length - 1;
    let number = 0;
    for (const { facts, lag, rate } of pillows.byKey.values()) {
      const random = Math.abs(Math.sin(second * 12.9898 + ++number * 78.233) * 43758.5453) % 1;
      const wave = 1 + 0.4 * Math.sin(second / (40 + 9 * number)) + 0.35 * (random - 0.5);
      const isAway = facts.state === "backing-off" && second < 184;
      const usual = facts.changes_per_second;
      rate[at] = isAway ? 0 : usual == null ? null : (usual || 21) * wave;
      lag[at] = isAway ? (184 - second) * 68 : facts.pending == null ? null
        : facts.state === "catching-up" ? facts.pending + 2600 * second
        : random > 0.93 ? Math.round(60 * (random - 0.9)) : 0;
    }
  }
}"""


def main() -> None:
    """Write the pictures that the pages show into `how-to/images`."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for old in IMAGES.iterdir():
        old.unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browser() as chromium:
            url = f"http://127.0.0.1:{server.server_port}/"
            take(chromium, url, "light", "wide")
            take(chromium, url, "dark", "narrow")
            take(chromium, url, "light", "wide", opened="patients")
    except ServerUnavailable as unavailable:
        sys.stderr.write(f"docs: no pictures of the page: {unavailable}\n")
        for name in ("light-wide", "dark-narrow", "opened"):
            (IMAGES / f"page-{name}.svg").write_text(
                '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40"><text y="24">'
                "Chromium was not there to take the picture.</text></svg>"
            )
    finally:
        server.shutdown()


def take(chromium: Any, url: str, scheme: str, form: str, opened: str = "") -> None:
    """Take one picture."""
    width, height = SIZES[form]
    size = {"width": width, "height": height}
    tab = chromium.new_page(viewport=size, color_scheme=scheme, device_scale_factor=2)
    tab.goto(url)
    tab.wait_for_selector("#rows tr")
    tab.evaluate(HISTORY)
    if opened:
        tab.locator("#rows .name", has_text=opened).click()
    tab.wait_for_timeout(1200)  # until the lines are drawn
    tab.screenshot(path=IMAGES / f"page-{'opened' if opened else f'{scheme}-{form}'}.png")
    tab.close()


class Answers(BaseHTTPRequestHandler):
    """The page, and one stream."""

    def do_GET(self) -> None:
        """Answer as the daemon does."""
        if self.path == "/v1/events":
            self._start("text/event-stream")
            for message in stream():
                self.wfile.write(message)
            self.wfile.flush()
            time.sleep(60)
            return
        try:
            answer = get_asset(cast("Any", None), name=self.path.rpartition("/")[2] or "index.html")
        except NotFoundError:
            self.send_error(404)
            return
        self._start(answer.media_type)
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _start(self, media_type: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": media_type, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()


def stream() -> Iterator[bytes]:
    """Yield what the daemon would say."""
    daemon = {"version": "0.1.0", "up_seconds": 6.3 * DAY, "at": time.time()}
    message = {"complete": True, "pillows": pillows(), "gone": [], "daemon": daemon}
    yield format_message("status", msgspec.json.encode(message), id="docs-1-0")
    for event in events():
        yield format_message("event", msgspec.json.encode(event), id=f"docs-1-{event.number}")


def pillows() -> list[dict[str, Any]]:
    """Return the facts of a clinic's pillows."""
    behind: dict[str, Any] = {"state": State.BACKING_OFF, "reason": REFUSED, "pending": 12_403}
    behind |= {"lag_seconds": 184.0, "changes_per_second": 0.0}
    loads: dict[str, Any] = {"state": State.CATCHING_UP, "pending": 1_240_311, "pass_number": 1}
    loads |= {
        "changes": 3_100_200,
        "lag_seconds": 1310.0,
        "changes_per_second": 2610.0,
        "seconds_to_go": 475.0,
    }
    return [
        pillow("appointments", 12),
        pillow("archive", 31),
        pillow(
            "audit", State.PAUSED, state=State.PAUSED, pending=None, changes_per_second=None, lag_seconds=5400
        ),
        pillow("households", 2610, **loads),
        pillow("patients", 20, **behind),
        pillow("prescriptions", 7, dead_letters=17),
        pillow(
            "referrals",
            0,
            state=State.FAILED,
            reason=RECREATED,
            pending=None,
            lag_seconds=4210.0,
            changes_per_second=None,
        ),
        pillow("stock", 3),
        pillow("visits", 42),
    ]


def pillow(name: str, rate: Any, **more: Any) -> dict[str, Any]:
    """Return the facts of one pillow, live unless told otherwise."""
    given: dict[str, Any] = {
        "state": State.LIVE,
        "changes": 481_220,
        "pending": 0,
        "lag_seconds": 0.0,
        "changes_per_second": rate,
        "epoch": 1,
        "last_byte_age_seconds": 0.4,
        "checkpoint_age_seconds": 1.2,
        **more,
    }
    status = TailStatus(pillow=name, source=f"couch/{name}", **given)
    since = NOW - (status.lag_seconds or 3.2 * DAY)
    past = [StateChange(at=NOW - 6.3 * DAY, state=State.LIVE, reason="")]
    past.append(StateChange(at=since, state=status.state, reason=status.reason))
    delivered = since if status.state is not State.LIVE and status.state is not State.CATCHING_UP else NOW - 2
    target = TransportStatus(
        transport="warehouse",
        documents_per_second=given["changes_per_second"] or 0.0,
        in_flight=int(status.state is State.BACKING_OFF),
        delivered_at=delivered,
        write_seconds=0.034,
        error=status.reason.partition(" Remedy")[0] if status.state is State.BACKING_OFF else "",
        error_at=NOW - 6,
    )
    builtins: dict[str, Any] = msgspec.to_builtins(status)
    return builtins | {"history": past, "transports": [target]}


def events() -> list[NotableEvent]:
    """Return the latest events."""
    told = [
        (4210.0, "referrals", "state", "failed", RECREATED),
        (1310.0, "households", "state", "catching-up", ""),
        (640.0, "prescriptions", "dead-letter", "warehouse", ""),
        (184.0, "patients", "state", "backing-off", REFUSED),
    ]
    return [
        NotableEvent(
            number=number,
            at=NOW - ago,
            pillow=name,
            source=f"couch/{name}",
            kind=kind,
            text=text,
            reason=reason,
        )
        for number, (ago, name, kind, text, reason) in enumerate(told, start=1)
    ]


if __name__ == "__main__":
    main()
