"""The steps of the demo.

Start a CouchDB-protocol server, fill it with a clinic's documents, run the daemon with `demo.yaml`, and
show that everything arrives, that changes arrive, that a killed daemon resumes from its checkpoints, and
that target and source are equal at the end.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from tests.demo import clinic, data
from tests.demo.comparison import Difference, compare
from tests.demo.daemon import ROOT, STEP_SECONDS, Daemon, DemoError
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.servers.process import free_port

CONFIG = ROOT / "tests" / "demo" / "demo.yaml"
PILLOWS = ("patients", "visits", "archive")

POLL_SECONDS = 0.1
#: What ends the demo: Ctrl-C, SIGTERM, a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


#: Where the page is, unless another process listens there.
PORT = 9147


def find_port() -> int:
    """Return the port of the page."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return free_port()
    return PORT


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise `Interrupted` on the first of the signals, ignore the later ones, restore the handlers after."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Demo:
    """Runs the steps and prints each of them.

    Args:
        folder: for all files; emptied by the caller.
        console: where the steps are printed.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.port = find_port()
        self.environment = {
            "PILLOWD_DEMO_DIR": str(folder),
            "PILLOWD_DEMO_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        self.daemon: Daemon | None = None
        self.couch: Any = None
        self.serving = False
        self.taken: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.present: list[dict[str, Any]] = []
        self.edited = 0

    def run(self, *, serve: bool) -> None:
        """Run all steps. Nothing is left running afterwards.

        Args:
            serve: keep server and daemon up until Ctrl-C or SIGTERM.

        Raises:
            DemoError: a step failed or was interrupted.
        """
        with raise_on_signals():
            try:
                self._story(serve=serve)
            except Interrupted:
                if not self.serving:
                    raise DemoError("The demo was interrupted.") from None

    def _story(self, *, serve: bool) -> None:
        (self.folder / "lines").mkdir()
        with ExitStack() as stack:
            self.couch = stack.enter_context(self._source())
            stack.callback(self._stop_daemon)
            self._load()
            self._start_daemon()
            self._catch_up("catching up", self._rows())
            self._expect_equal("everything arrived")
            self._catch_up("following changes", self._change(seed=2, share=0.02))
            self._expect_equal("changes arrived")
            self._crash()
            self._expect_equal("target equals source")
            self._print_files(serve=serve)
            if serve:
                self._serve()

    # --- steps

    @contextmanager
    def _source(self) -> Iterator[Any]:
        self._print("Starting a CouchDB-protocol server")
        with CouchDB(data_dir=self.folder / "couchdb", admin=f"admin:{clinic.PASSWORD}") as server:
            self.environment |= {
                "PILLOWD_DEMO_COUCHDB": server.url,
                "PILLOWD_DEMO_PASSWORD": clinic.PASSWORD,
            }
            yield CouchDatabase(server.url, clinic.DATABASE, auth=server.auth).create()

    def _load(self) -> None:
        documents = data.documents()
        clinic.fill(self.couch, documents)
        self._print(f"Loaded {len(documents):,} documents, with updates, deletions and conflicts")

    def _start_daemon(self) -> None:
        self.daemon = Daemon(self.folder, CONFIG, self.environment)
        self.daemon.start()
        self._print(f"pillowd runs as pid {self.daemon.pid} with {CONFIG.relative_to(ROOT)}")

    def _catch_up(self, title: str, expected: int) -> None:
        """Show a bar for each pillow until it has read the expected changes, and nothing differs."""
        columns = [TextColumn("  {task.description:<10}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            bars = {name: progress.add_task(name, total=expected) for name in PILLOWS}

            def arrived() -> bool:
                tails = self._running_daemon().statuses()
                for tail in tails:
                    taken = tail["changes"] - self.taken.get(tail["pillow"], 0)
                    progress.update(bars[tail["pillow"]], completed=min(expected, taken))
                self.now = {tail["pillow"]: tail["changes"] for tail in tails}
                return len(tails) == len(PILLOWS) and not self._differences()

            self._until(arrived, title)
            for bar in bars.values():
                progress.update(bar, completed=expected)
        self.taken = self.now

    def _change(self, *, seed: int, share: float) -> int:
        changed = clinic.change(self.couch, seed=seed, share=share)
        self._print(f"Changed {changed} documents in CouchDB")
        return changed

    def _crash(self) -> None:
        """Kill the daemon, change documents, and start it again."""
        daemon = self._running_daemon()
        daemon.kill()
        self._print(f"Killed pillowd (pid {daemon.pid}) with SIGKILL")
        changed = self._change(seed=4, share=0.03)
        self._start_daemon()
        self._catch_up("resuming", changed)
        resumed = daemon.log.read_text(errors="replace").count("tail.resumed")
        if resumed < len(PILLOWS):
            raise DemoError("A pillow did not resume from its checkpoint")
        self._print(f"All {len(PILLOWS)} pillows resumed from their checkpoints")

    def _serve(self) -> None:
        self.serving = True
        self._print(f"The page: [bold]http://127.0.0.1:{self.port}/[/]")
        self._print("Serving until Ctrl-C, with a few changes per second")
        code = None
        while code is None:
            try:
                code = self._running_daemon().wait(timeout=1)
            except subprocess.TimeoutExpired:
                with suppress(requests.ConnectionError):  # who stops CouchDB wants to see what the page says
                    self._edit_a_few()
        if code:
            raise DemoError(f"pillowd ended with exit code {code}; see {self.folder}/pillowd.log")

    def _edit_a_few(self) -> None:
        """Change some documents in CouchDB, so that there is something to see."""
        if not self.present:
            self.present = list(self.couch.documents().values())
        self.edited += 1
        edited = list(data.edits(self.present, seed=1000 + self.edited, share=0.001))
        revs = {row["id"]: row["rev"] for row in self.couch.bulk(edited)}
        gone = {document["_id"] for document in edited if document.get("_deleted")}
        new = {document["_id"]: document | {"_rev": revs[document["_id"]]} for document in edited}
        self.present = [
            new.get(document["_id"], document) for document in self.present if document["_id"] not in gone
        ]

    # --- helpers

    def _expect_equal(self, what: str) -> None:
        differences = self._differences()
        if differences:
            raise DemoError(f"{what}: no, {len(differences)} differences, such as {differences[0]}")
        self._print(f"[green]✓[/] {what}: {len(self.couch.documents()):,} documents compared", mark="")

    def _differences(self) -> list[Difference]:
        return compare(self.couch.documents(), self.folder / "clinic.sqlite", self.folder / "lines")

    def _rows(self) -> int:
        """Return the number of rows in the feed: one for each document, deleted ones included."""
        return len(self.couch.changes(feed="normal")["results"])

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        while not condition():
            self._running_daemon().expect_running(what)
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{what} took longer than {STEP_SECONDS:.0f} s; see {self.folder}/pillowd.log"
                )
            time.sleep(POLL_SECONDS)

    def _running_daemon(self) -> Daemon:
        if self.daemon is None:
            raise DemoError("pillowd was not started")
        return self.daemon

    def _stop_daemon(self) -> None:
        if self.daemon is not None:
            self.daemon.stop()

    def _print_files(self, *, serve: bool) -> None:
        self.console.print(f"\nEverything is in [bold]{self.folder}[/]:")
        for name, what in (
            ("clinic.sqlite", "the tables patients, visits and prescriptions"),
            ("lines/", "every change as a JSON line"),
            ("pillowd.log", "the daemon's log"),
            ("state/", "its checkpoints"),
        ):
            self.console.print(f"  {name:14} {what}")
        self.console.print("\nWhat to try next:")
        for command in self._commands(serve=serve):
            self.console.print(f"  {command}", soft_wrap=True, highlight=False)

    def _commands(self, *, serve: bool) -> list[str]:
        query = "select drug, count(*) from prescriptions group by drug"
        database = f"sqlite3.connect('{self.folder}/clinic.sqlite')"
        look = f"import sqlite3; print(*{database}.execute('{query}'), sep='\\n')"
        commands = [f'{sys.executable} -c "{look}"']
        if not serve:
            return [
                *commands,
                "make demo SERVE=1   # keeps everything up, to look at the page and `pillowd top`",
            ]
        names = tuple(f"PILLOWD_DEMO_{name}" for name in ("DIR", "PORT", "COUCHDB", "PASSWORD"))
        environment = " ".join(f"{name}={self.environment[name]}" for name in names)
        pillowd = f"{environment} {sys.executable} -m daemon"
        verbs = ("top", "tap visits", "status", "checkpoint get patients")
        return [
            f"curl -s http://localhost:{self.port}/metrics",
            *commands,
            *(f"{pillowd} {verb} --config {CONFIG}" for verb in verbs),
        ]

    def _print(self, text: str, mark: str = "• ") -> None:
        self.console.print(f"{mark}{text}", highlight=False)
