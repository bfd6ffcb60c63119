"""The demo's story: the main job on this machine, with nothing to configure.

It starts a CouchDB-protocol server, fills it with a clinic's documents, runs the daemon with
`etc/demo.yaml`, and shows what the daemon is for: everything arrives, changes arrive, a daemon that
was killed goes on where it was, and in the end target and source are equal.

It needs a checkout: the server is the one that the tests use.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from checkpoints import ControlClient, StoreError
from daemon.demo import data
from daemon.demo.check import Difference, compare
from daemon.demo.stops import collected
from pillows.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "etc" / "demo.yaml"
DATABASE = "clinic"
PILLOWS = ("patients", "visits", "archive")

#: How long one step may take: a busy machine needs a few seconds.
STEP_SECONDS = 120.0
POLL_SECONDS = 0.1
#: How often it is looked whether a signal came.
SIGNAL_SECONDS = 0.2


class DemoFailed(Exception):
    """A step of the demo did not come true."""


class Demo:
    """Tells the story, step by step.

    Args:
        folder: where everything is kept; emptied by the caller.
        console: where it is told.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.environment = os.environ | {"PILLOWD_DEMO_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.daemon: subprocess.Popen[bytes] | None = None
        self.couch: Any = None
        self.serving = False
        self.taken: dict[str, int] = {}
        self.now: dict[str, int] = {}

    def run(self, *, serve: bool) -> None:
        """Runs the whole story until it is told to stop; afterwards nothing is left running.

        It runs in a greenlet: a handler that raised in the middle of whatever runs would be printed by
        gevent, and could be lost.

        Args:
            serve: keep server and daemon up until Ctrl-C or SIGTERM.

        Raises:
            DemoFailed: a step did not come true, or the story was cut short.
        """
        with collected() as asked:
            story = gevent.spawn(self._outcome, serve=serve)
            while not story.ready() and not asked:
                story.join(timeout=SIGNAL_SECONDS)
            told = story.ready()
            if not told:
                self._tell("Stopping")
                story.kill()
        if not told and not self.serving:
            raise DemoFailed("The demo was interrupted.")
        if told and story.value is not None:
            raise story.value

    def _outcome(self, *, serve: bool) -> Exception | None:
        """What the story failed of; gevent would print what a greenlet raises."""
        try:
            self._story(serve=serve)
        except Exception as error:  # noqa: BLE001  it is raised in `run`
            return error
        return None

    def _story(self, *, serve: bool) -> None:
        (self.folder / "lines").mkdir()
        with ExitStack() as stack:
            self.couch = stack.enter_context(self._source())
            stack.callback(self._end_daemon)
            self._load()
            self._start_daemon()
            self._catch_up("catching up", self._rows())
            self._expect_equal("everything arrived")
            self._catch_up("following changes", self._change(seed=2, share=0.02))
            self._expect_equal("changes arrived")
            self._crash()
            self._expect_equal("target equals source")
            self._say_where(serve=serve)
            if serve:
                self._serve()

    # --- steps

    @contextmanager
    def _source(self) -> Iterator[Any]:
        self._tell("Starting a CouchDB-protocol server")
        try:
            servers = importlib.import_module("tests.servers.couch_peer")
            client = importlib.import_module("tests.servers.couch_client")
        except ImportError as error:
            raise ConfigError(
                "The demo needs a checkout of pillowd: it uses the server of its tests.",
                remedy="clone the repository and run `make demo`",
            ) from error
        with servers.CouchPeer(data_dir=self.folder / "couchdb") as server:
            self.environment["PILLOWD_DEMO_COUCHDB"] = server.url
            yield client.CouchDatabase(server.url, DATABASE).create()

    def _load(self) -> None:
        documents = data.documents()
        rows = self.couch.bulk(documents)
        revs = {row["id"]: row["rev"] for row in rows}
        present = [document | {"_rev": revs[document["_id"]]} for document in documents]
        self.couch.bulk(data.conflicts(present, seed=3, count=60), new_edits=False)
        self.couch.bulk(data.edits(present, seed=1, share=0.1))
        self._tell(f"Loaded {len(documents):,} documents, with updates, deletions and conflicts")

    def _start_daemon(self) -> None:
        log = (self.folder / "pillowd.log").open("ab")
        command = [sys.executable, "-m", "daemon", "run", "--all", "--config", str(CONFIG)]
        self.daemon = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            command,
            env=self.environment,
            stderr=log,
            stdout=log,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C at a terminal is for us: we stop it in order
        )
        log.close()
        self._tell(f"pillowd runs as pid {self.daemon.pid} with {CONFIG.relative_to(ROOT)}")

    def _catch_up(self, title: str, expected: int) -> None:
        """Shows a bar a pillow until each has taken the expected changes, and nothing differs."""
        columns = [TextColumn("  {task.description:<10}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            bars = {name: progress.add_task(name, total=expected) for name in PILLOWS}

            def arrived() -> bool:
                tails = self._statuses()
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
        present = list(self.couch.documents().values())
        rows = self.couch.bulk(data.edits(present, seed=seed, share=share))
        self._tell(f"Changed {len(rows)} documents in CouchDB")
        return len(rows)

    def _crash(self) -> None:
        """Kills the daemon, changes documents meanwhile, starts it again."""
        daemon = self._running_daemon()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        self._tell(f"Killed pillowd (pid {daemon.pid}) with SIGKILL")
        changed = self._change(seed=4, share=0.03)
        self._start_daemon()
        self._catch_up("resuming", changed)
        resumed = (self.folder / "pillowd.log").read_text(errors="replace").count("tail.resumed")
        if resumed < len(PILLOWS):
            raise DemoFailed("A pillow did not resume from its checkpoint")
        self._tell(f"All {len(PILLOWS)} pillows resumed from their checkpoints")

    def _serve(self) -> None:
        self.serving = True
        self._tell("Serving until Ctrl-C")
        code = self._running_daemon().wait()
        if code:
            raise DemoFailed(f"pillowd ended with exit code {code}; see {self.folder}/pillowd.log")

    # --- helpers

    def _expect_equal(self, what: str) -> None:
        differences = self._differences()
        if differences:
            raise DemoFailed(f"{what}: no, {len(differences)} differences, such as {differences[0]}")
        self._tell(f"[green]✓[/] {what}: {len(self.couch.documents()):,} documents compared", mark="")

    def _differences(self) -> list[Difference]:
        return compare(self.couch.documents(), self.folder / "clinic.sqlite", self.folder / "lines")

    def _rows(self) -> int:
        """How many rows the feed has: one a document, deleted ones included."""
        return len(self.couch.changes(feed="normal")["results"])

    def _statuses(self) -> list[dict[str, Any]]:
        try:
            with ControlClient(self.folder / "control.sock", timeout_seconds=5) as client:
                tails: list[dict[str, Any]] = client.call("status")["pillows"]
                return tails
        except StoreError:
            return []  # it is still starting

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        while not condition():
            code = self._running_daemon().poll()
            if code is not None:
                raise DemoFailed(f"pillowd ended with exit code {code} while {what}; see its log")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{what} took longer than {STEP_SECONDS:.0f} s; see {self.folder}/pillowd.log"
                )
            time.sleep(POLL_SECONDS)

    def _running_daemon(self) -> subprocess.Popen[bytes]:
        if self.daemon is None:
            raise DemoFailed("pillowd was not started")
        return self.daemon

    def _end_daemon(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(timeout=STEP_SECONDS)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()

    def _say_where(self, *, serve: bool) -> None:
        self.console.print(f"\nEverything is in [bold]{self.folder}[/]:")
        for name, what in (
            ("clinic.sqlite", "the tables patients, visits and prescriptions"),
            ("lines/", "every change as a JSON line"),
            ("pillowd.log", "what the daemon said"),
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
            return [*commands, "make demo SERVE=1   # keeps everything up, to look at `pillowd status`"]
        names = ("PILLOWD_DEMO_DIR", "PILLOWD_DEMO_COUCHDB")
        environment = " ".join(f"{name}={self.environment[name]}" for name in names)
        pillowd = f"{environment} {sys.executable} -m daemon"
        verbs = ("status", "list", "checkpoint get patients")
        return commands + [f"{pillowd} {verb} --config {CONFIG}" for verb in verbs]

    def _tell(self, text: str, mark: str = "• ") -> None:
        self.console.print(f"{mark}{text}", highlight=False)
