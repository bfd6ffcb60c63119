"""The steps of `make demo-cluster`.

Start Kafka, PostgreSQL and a CouchDB-protocol server, fill that with a clinic's documents, and run two
daemons that share the pillows. Kill one of them, and show that the other one takes over and that nothing is
lost.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from tests.demo import clinic, data
from tests.demo.comparison import Difference, compare_tables
from tests.demo.daemon import ROOT, STEP_SECONDS, Daemon, DemoError
from tests.demo.story import Interrupted, raise_on_signals
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres

CONFIG = ROOT / "tests" / "demo" / "cluster.yaml"
PILLOWS = ("patients", "visits")
PARTITIONS = 4
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the demo reads, writes and shares the pillows with.

    Attributes:
        couch: the source.
        dsn: of the PostgreSQL database.
        kafka: host and port of a broker.
        service: the name that the daemons have in common.
    """

    couch: CouchDatabase
    dsn: str
    kafka: str
    service: str = "demo"


@contextmanager
def start_servers(folder: Path, console: Console) -> Iterator[Servers]:
    """Start the servers of the demo, and end them afterwards."""
    console.print("• Starting a CouchDB-protocol server, PostgreSQL and Kafka")
    with ExitStack() as stack:
        admin = f"admin:{clinic.PASSWORD}"
        couch = stack.enter_context(CouchDB(data_dir=folder / "couchdb", admin=admin))
        # In a folder that PostgreSQL's own user may enter.
        postgres = stack.enter_context(Postgres())
        kafka = stack.enter_context(Kafka(data_dir=folder / "kafka"))
        database = CouchDatabase(couch.url, clinic.DATABASE, auth=couch.auth).create()
        yield Servers(couch=database, dsn=postgres.dsn, kafka=kafka.where)


class ClusterDemo:
    """Runs the steps and prints each of them.

    Args:
        folder: for the daemons' files; emptied by the caller.
        console: where the steps are printed.
        servers: the servers, which run.
    """

    def __init__(self, folder: Path, console: Console, servers: Servers) -> None:
        self._folder = folder
        self._console = console
        self._servers = servers
        self._daemons = [self._make_daemon(name) for name in ("first", "second")]

    def run(self, documents: Sequence[dict[str, Any]]) -> None:
        """Run all steps with some documents of the clinic. No daemon is left running afterwards.

        Raises:
            DemoError: a step failed.
        """
        with ExitStack() as stack:
            for daemon in self._daemons:
                stack.callback(daemon.stop)
            self._start(documents)
            self._kill_one()
            self._verify()
        self._console.print(f"\nThe daemons' logs and states are in [bold]{self._folder}[/].")

    # --- steps

    def _start(self, documents: Sequence[dict[str, Any]]) -> None:
        couch = self._servers.couch
        for daemon in self._daemons:
            daemon.start()
        pids = " and ".join(str(daemon.pid) for daemon in self._daemons)
        self._print(f"Two daemons run, as pids {pids}, with {CONFIG.relative_to(ROOT)}")
        clinic.fill(couch, documents)
        self._print(f"Loaded {len(documents):,} documents, with updates, deletions and conflicts")
        self._until("sharing the pillows", self._is_shared)
        self._print(f"Each has {PARTITIONS // 2} of the {PARTITIONS} partitions of each pillow")
        self._expect_equal("everything arrived")

    def _kill_one(self) -> None:
        first, second = self._daemons
        first.kill()
        killed_at = time.monotonic()
        self._daemons = [second]
        self._print(f"Killed the first daemon (pid {first.pid}) with SIGKILL")
        changed = clinic.change(self._servers.couch, seed=4, share=0.03)
        self._print(f"Changed {changed} documents in CouchDB")
        self._until("taking over", lambda: all(_find_share(second, name) == PARTITIONS for name in PILLOWS))
        seconds = time.monotonic() - killed_at
        self._print(f"After {seconds:.0f} s the second daemon (pid {second.pid}) has all partitions")
        self._expect_equal("nothing was lost")

    def _verify(self) -> None:
        """Run `pillowd verify` on the daemon that is left."""
        (daemon,) = self._daemons
        for name in PILLOWS:
            done = subprocess.run(
                [sys.executable, "-m", "daemon", "verify", name, "--config", str(CONFIG)],
                env=daemon.environment,
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=STEP_SECONDS,
                check=False,
            )
            if done.returncode:
                raise DemoError(f"pillowd verify {name} says: {done.stdout}{done.stderr}")
            verdict = done.stdout.strip().splitlines()[-1]
            self._print(f"[green]✓[/] pillowd verify {name}: {verdict}", mark="")

    # --- helpers

    def _make_daemon(self, name: str) -> Daemon:
        folder = self._folder / name
        folder.mkdir()
        environment = {
            "PILLOWD_DEMO_DIR": str(folder),
            "PILLOWD_DEMO_COUCHDB": self._servers.couch.server_url,
            "PILLOWD_DEMO_PASSWORD": clinic.PASSWORD,
            "PILLOWD_DEMO_POSTGRES": self._servers.dsn,
            "PILLOWD_DEMO_KAFKA": self._servers.kafka,
            "PILLOWD_DEMO_SERVICE": self._servers.service,
        }
        return Daemon(folder, CONFIG, environment)

    def _is_shared(self) -> bool:
        """Return whether each daemon has the same number of partitions of each pillow."""
        return all(
            _find_share(daemon, name) == PARTITIONS // len(self._daemons)
            for daemon in self._daemons
            for name in PILLOWS
        )

    def _expect_equal(self, what: str) -> None:
        """Wait until the tables are equal to the source, compared without pillowd."""
        self._until(what, lambda: not self._differences())
        self._print(
            f"[green]✓[/] {what}: {len(self._servers.couch.documents()):,} documents compared", mark=""
        )

    def _differences(self) -> list[Difference]:
        documents = self._servers.couch.documents()
        with closing(psycopg.connect(self._servers.dsn)) as connection:
            try:
                return compare_tables(documents, lambda query: connection.execute(query).fetchall())
            except psycopg.errors.UndefinedTable as error:
                return [(str(error), "")]

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + STEP_SECONDS
        while not holds():
            for daemon in self._daemons:
                daemon.expect_running(what)
            if time.monotonic() > give_up_at:
                raise DemoError(f"{what} took longer than {STEP_SECONDS:.0f} s; see {self._folder}")
            time.sleep(POLL_SECONDS)

    def _print(self, text: str, mark: str = "• ") -> None:
        self._console.print(f"{mark}{text}", highlight=False)


def run_cluster(folder: Path, console: Console) -> None:
    """Run the demo with servers of its own. Nothing is left running afterwards.

    Raises:
        DemoError: a step failed.
    """
    with raise_on_signals():
        try:
            with start_servers(folder, console) as servers:
                ClusterDemo(folder, console, servers).run(data.documents())
        except Interrupted:
            raise DemoError("The demo was interrupted.") from None


def _find_share(daemon: Daemon, pillow: str) -> int:
    """Return how many partitions of a pillow a daemon has; 0 while that is not told."""
    (reason,) = [each["reason"] for each in daemon.statuses() if each["pillow"] == pillow] or [""]
    found = re.match(r"(\d+) of \d+ partitions here", reason)
    return int(found[1]) if found else 0
