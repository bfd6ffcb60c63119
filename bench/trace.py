"""The path of one change: our calls, modules, greenlets and buffers, from its row to its checkpoint.

Usage: python -m bench.trace [--json]

One pillow follows a continuous feed with documents along into SQLite. Once it is idle at the head, one
document is written to CouchDB, and every call of our own is counted until the checkpoint that holds it
is durable. Of several changes the shortest path is printed: timers run in between.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import sys
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from rich.console import Console
from rich.table import Table

from checkpoints import Checkpoint
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.load import load
from daemon.state_dir import open_state_dir
from pillows.clock import SystemClock
from pillows.feed.shared.pool import FeedPool
from pillows.observer import Observer
from pillows.runtime.status import State
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.servers.source import Source

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / package}/" for package in ("checkpoints", "pillows", "daemon"))
CHANGES = 5
WAIT_SECONDS = 60.0

#: Where a change waits for the next greenlet or for company: method -> what holds it meanwhile.
BUFFERS = {
    "LineSplitter.feed": "line splitter",
    "BatchCutter.add": "batch cutter",
    "DocumentLoader.add": "document loader",
    "BoundedQueue.put": "queue of the reader",
    "Subscriber.put": "queue of a subscriber",
    "Batcher.add": "batcher",
}

CONFIG = """\
version: 1
daemon: {{ state_dir: {folder}/state }}
checkpoints: {{ interval: 1s }}
connections:
  couch: {{ {couch} }}
  copy: {{ type: sqlite, path: {folder}/copy.sqlite }}
pillows:
  traced:
    source: {{ connection: couch, database: traced, documents: include_docs, mode: continuous }}
    transport: [{{ connection: copy, table: traced }}]
"""


@dataclass(slots=True)
class Trace:
    """The parts that one change passed through.

    Attributes:
        calls: greenlet or thread -> module -> number of calls.
        buffers: the buffers that held it.
    """

    calls: dict[str, Counter[str]] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        return sum(sum(modules.values()) for modules in self.calls.values())

    @property
    def modules(self) -> set[str]:
        return {module for modules in self.calls.values() for module in modules}


class Tracer:
    """Records our own calls in all greenlets and threads, while `path` is set."""

    def __init__(self) -> None:
        self.path: Trace | None = None
        self._seen: set[FrameType] = set()

    def start(self) -> None:
        """Profile this thread and later ones. Greenlets that run already are not seen."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def record(self) -> Trace:
        """Begin a path."""
        self._seen = set()
        self.path = Trace()
        return self.path

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        path, code = self.path, frame.f_code
        if path is None or event != "call" or not code.co_filename.startswith(OURS):
            return
        if frame in self._seen or code.co_name.startswith("<"):  # a generator goes on; a comprehension
            return
        self._seen.add(frame)
        module = str(Path(code.co_filename).relative_to(ROOT).with_suffix("")).replace("/", ".")
        path.calls.setdefault(_who(), Counter())[module] += 1
        if code.co_qualname in BUFFERS:
            path.buffers.add(BUFFERS[code.co_qualname])


def _who() -> str:
    """Return the name of this greenlet, or of a thread of the pool."""
    if threading.get_native_id() != MAIN:
        return "thread pool"
    greenlet = gevent.getcurrent()
    run = getattr(greenlet, "_run", None)
    run = getattr(run, "func", run)  # of a partial
    return str(getattr(run, "__qualname__", type(greenlet).__name__))


MAIN = threading.get_native_id()


class Saved(Observer):
    """Ends the path when a checkpoint is durable that holds the change."""

    def __init__(self, tracer: Tracer) -> None:
        self.changes = 0
        self._tracer = tracer

    def checkpoint(self, *_: object, checkpoint: Checkpoint, **__: object) -> None:
        """Called after a checkpoint was saved."""
        if checkpoint.changes > self.changes:
            self._tracer.path = None
            self.changes = checkpoint.changes


def trace() -> Trace:
    """Return the shortest path of several changes."""
    tracer = Tracer()
    observer = Saved(tracer)
    clock = SystemClock()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-trace-")))
        server = stack.enter_context(CouchDB(memory=True))
        couch = Source(url=server.url, auth=server.auth)
        database = CouchDatabase(server.url, "traced", auth=server.auth).create()
        database.put("first", {"n": 0})
        (folder / "pillowd.yaml").write_text(CONFIG.format(folder=folder, couch=couch.settings))
        config = load(folder / "pillowd.yaml", couch.environ)
        state = stack.enter_context(open_state_dir(config.daemon.state_dir, clock))
        feeds = stack.enter_context(closing(FeedPool(clock=clock, observer=observer)))
        services = Services(
            store=state.store, dead_letters=state.dead_letters, clock=clock, observer=observer, feeds=feeds
        )
        ((_, factory),) = build_tails(config, services).items()
        tail, stop = factory(), Event()
        tracer.start()
        running = gevent.spawn(tail.run, stop)
        stack.callback(running.join)
        stack.callback(stop.set)
        _wait(lambda: tail.status().state is State.LIVE and tail.status().changes >= 1, running)
        return min(
            (_one(tracer, observer, database, running, n) for n in range(CHANGES)), key=lambda p: p.count
        )


def _one(tracer: Tracer, observer: Saved, database: CouchDatabase, running: Any, number: int) -> Trace:
    gevent.sleep(1.2)  # the interval of checkpoints: nothing is left to be saved
    before = observer.changes
    path = tracer.record()
    database.put(f"doc-{number}", {"n": number})
    _wait(lambda: observer.changes > before, running)
    return path


def _wait(condition: Any, running: Any) -> None:
    with gevent.Timeout(WAIT_SECONDS):
        while not condition():
            if running.dead:
                running.get()
            gevent.sleep(0.01)


def to_json(path: Trace) -> dict[str, Any]:
    """Return the numbers, and the calls by greenlet and module."""
    return {
        "calls": path.count,
        "modules": len(path.modules),
        "greenlets": len(path.calls),
        "buffers": sorted(path.buffers),
        "path": {who: dict(modules) for who, modules in path.calls.items()},
    }


def show(path: Trace) -> None:
    """Print the path as a table."""
    table = Table("greenlet or thread", "module", "calls", title="One change, from its row to its checkpoint")
    for who, modules in path.calls.items():
        for index, (module, calls) in enumerate(modules.items()):
            table.add_row(
                who if index == 0 else "", module, str(calls), end_section=index == len(modules) - 1
            )
    console = Console(width=110)
    console.print(table)
    buffers = ", ".join(sorted(path.buffers))
    console.print(
        f"{path.count} calls, {len(path.modules)} modules, {len(path.calls)} greenlets and threads, "
        f"{len(path.buffers)} buffers ({buffers})",
        highlight=False,
    )


if __name__ == "__main__":
    shortest = trace()
    print(json.dumps(to_json(shortest))) if "--json" in sys.argv else show(shortest)
