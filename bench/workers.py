"""Measure what worker processes gain: documents per second with 0 to 4 workers, and what the cores allow.

Usage: python -m bench.workers [--docs N] [--pairs N] [--workers N ...] [--target null|postgres] [--json]
    [--note]

A recorded feed goes through a transform of one millisecond of CPU into a target. Each number of workers is
measured in pairs with none, one right after the other, so that whatever else runs on the machine slows both
down; the median of the pairs counts. CPU times are of the processes, so they hold on a busy machine, too.

The bound is computed from these times: no more than the coordinator's core can do, than the workers can do,
and than all cores can do together. With it the last lines say what more cores would give: that is no
measurement. `--note` writes the figures, and a picture of them, into `docs/explanation/worker-processes.md`.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import psutil
import psycopg
from gevent.event import Event

from bench.plot import Panel, draw
from checkpoints import TailKey
from daemon.assembly.pipelines import build_transports
from daemon.assembly.tails import build_tail_settings
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config.plugin_modules import add_folders
from daemon.state_dir import open_state_dir
from daemon.workers.carriers import find_carrier
from docs.measured import ROOT, describe_run, format_table, write_between_marks
from pillows.clock import SystemClock
from pillows.feed.recorded import RecordedFeed
from pillows.observer import Observer
from pillows.parallel import pipeline
from pillows.runtime.tail import Tail
from pillows.runtime.tail_settings import TailServices
from tests.servers.postgres import Postgres

FUNCTION = """
import time

def rows(doc):
    until = time.thread_time() + {seconds}
    while time.thread_time() < until:
        pass
    return {{"n": doc["n"], "text": doc["text"]}}
"""

CONFIG = """
version: 1
daemon: {{ state_dir: {folder}/state, plugins_path: [{folder}/plugins] }}
connections:
  couch: {{ type: couchdb, url: "http://127.0.0.1:1" }}
  target: {target}
pillows:
  bench:
    source: {{ connection: couch, database: bench }}
    load: {{ workers: {workers} }}
    transform: {{ python: "bench_rows:rows" }}
    transport: [{{ connection: target, {output} }}]
"""
KEY = TailKey("bench", "couch/bench")
PAGE = ROOT / "docs" / "explanation" / "worker-processes.md"
IMAGES = ROOT / "docs" / "images"
TRANSFORM_SECONDS = 0.001
DOCUMENT_BYTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run.

    Attributes:
        workers: how many.
        documents: how many.
        seconds: from the first document until all were acknowledged; starting the workers does not count.
        coordinator_us, worker_us: CPU microseconds per document, of this process and of all workers.
    """

    workers: int
    documents: int
    seconds: float
    coordinator_us: float
    worker_us: float

    @property
    def per_second(self) -> float:
        """Documents per second."""
        return self.documents / self.seconds

    def bound(self, workers: int, cores: int) -> float:
        """Documents per second that these CPU times allow."""
        return 1e6 / max(
            self.coordinator_us,
            self.worker_us / workers if workers else 0.0,
            (self.coordinator_us + self.worker_us) / cores,
        )


class Progress(Observer):
    """Notes when the run and its workers have started, and when all documents are done."""

    def __init__(self, documents: int) -> None:
        self.complete = Event()
        self._documents = documents
        self.at = self.cpu = self.workers_cpu = 0.0
        self.done = self.first = 0

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:  # noqa: ARG002 - an observer's
        self.done += count
        if not self.at:
            self.workers_cpu = _workers_seconds()  # first: to look for the workers takes this process 20 ms
            self.at, self.cpu = time.monotonic(), time.process_time()
            self.first = self.done
        if self.done >= self._documents:
            self.complete.set()


def record(path: Path, documents: int) -> None:
    """Write a recorded page of the feed."""
    text = "x" * (DOCUMENT_BYTES - 100)
    rows = [
        json.dumps(
            {
                "seq": f"{n}-x" if n % 100 == 99 else None,
                "id": f"{n:08}",
                "changes": [{"rev": "1-a"}],
                "doc": {"_id": f"{n:08}", "_rev": "1-a", "n": n, "text": text},
            }
        )
        for n in range(documents)
    ]
    path.write_text('{"results":[\n' + ",\n".join(rows) + f'\n],\n"last_seq":"{documents}-x","pending":0}}\n')


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go.

    Attributes:
        connection: its settings.
        output: the settings of its output.
        dsn: of a PostgreSQL server, which is emptied before each run; "" for none.
    """

    connection: str = '{ type: "null" }'
    output: str = "name: nowhere"
    dsn: str = ""

    def empty(self) -> None:
        """Remove what another run has written."""
        if self.dsn:
            with psycopg.connect(self.dsn, autocommit=True) as db:
                db.execute("DROP SCHEMA public CASCADE")
                db.execute("CREATE SCHEMA public")


def run(folder: Path, documents: int, workers: int, target: Target) -> Measured:
    """Carry a recorded feed once."""
    folder.mkdir()
    (folder / "plugins").mkdir()
    (folder / "plugins" / "bench_rows.py").write_text(FUNCTION.format(seconds=TRANSFORM_SECONDS))
    target.empty()
    settings = CONFIG.format(folder=folder, workers=workers, target=target.connection, output=target.output)
    (folder / "pillowd.yaml").write_text(settings)
    record(folder / "feed.json", documents)
    config = load(folder / "pillowd.yaml")
    add_folders(config.daemon.plugins_path)
    with _far_behind():
        return _carry(config, folder, documents, workers)


def _carry(config: Config, folder: Path, documents: int, workers: int) -> Measured:
    clock, started = SystemClock(), Progress(documents)
    with open_state_dir(config.daemon.state_dir, clock) as state:
        services = TailServices(
            make_feed=lambda: RecordedFeed(folder / "feed.json", clock=clock),
            make_transports=lambda: build_transports(config, KEY),
            store=state.store,
            dead_letters=state.dead_letters,
            clock=clock,
            observer=started,
            make_carrier=find_carrier(config, KEY, clock, None) if workers else None,
        )
        tail, stop = Tail(build_tail_settings(config, KEY), services), Event()
        running = gevent.spawn(tail.run, stop)
        running.rawlink(lambda _: started.complete.set())  # with an error
        started.complete.wait()
        if running.dead:
            running.get()
        ended, cpu, workers_cpu = time.monotonic(), time.process_time(), _workers_seconds()
        stop.set()
        running.join()
    counted = documents - started.first
    return Measured(
        workers=workers,
        documents=counted,
        seconds=ended - started.at,
        coordinator_us=(cpu - started.cpu) / counted * 1e6,
        worker_us=(workers_cpu - started.workers_cpu) / counted * 1e6,
    )


@contextmanager
def _far_behind() -> Iterator[None]:
    """Let workers start at once: a recording does not say how many changes are behind."""
    usual, pipeline.FAR_BEHIND = pipeline.FAR_BEHIND, -1
    try:
        yield
    finally:
        pipeline.FAR_BEHIND = usual


def _workers_seconds() -> float:
    """CPU seconds of the workers that run now."""
    times = [each.cpu_times() for each in psutil.Process().children()]
    return sum(each.user + each.system for each in times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The gain by some workers.

    Attributes:
        run: the median of its runs.
        ratio: how many times as fast as none: the median of the pairs.
        none: the median of the runs without workers.
    """

    run: Measured
    ratio: float
    none: Measured


def compare(documents: int, workers: Sequence[int], pairs: int, target: Target) -> list[Gain]:
    """Measure each number of workers against none, in pairs of runs: one without workers, then one with."""
    found = []
    with tempfile.TemporaryDirectory(prefix="pillowd-workers-") as name:
        for count in workers:
            made = []
            for n in range(pairs):
                none = run(Path(name, f"{count}-{n}-none"), documents, 0, target)
                made.append((none, run(Path(name, f"{count}-{n}"), documents, count, target)))
            ratios = [some.per_second / none.per_second for none, some in made]
            found.append(
                Gain(
                    run=_median([some for _, some in made]),
                    ratio=statistics.median(ratios),
                    none=_median([none for none, _ in made]),
                )
            )
    return found


def _median(runs: Sequence[Measured]) -> Measured:
    return sorted(runs, key=lambda each: each.per_second)[len(runs) // 2]


def to_json(gains: Sequence[Gain], cores: int) -> list[dict[str, Any]]:
    """Return the figures."""
    return [
        {
            "workers": each.run.workers,
            "per_second": round(each.run.per_second),
            "ratio": round(each.ratio, 2),
            "bound_per_second": round(each.run.bound(each.run.workers, cores)),
            "coordinator_us": round(each.run.coordinator_us, 1),
            "worker_us": round(each.run.worker_us, 1),
        }
        for each in gains
    ]


def format_figures(gains: Sequence[Gain], cores: int) -> str:
    """Return the figures, and what they allow on other machines, in Markdown."""
    none = gains[0].none
    rows = [
        _format_row(none, 1.0, 1e6 / none.coordinator_us),
        *(_format_row(each.run, each.ratio, each.run.bound(each.run.workers, cores)) for each in gains),
    ]
    head = ("workers", "documents/s", "times as fast", "bound/s", "daemon, µs", "workers, µs")
    last = gains[-1].run
    extrapolated = [
        f"- Extrapolated, not measured: {others} cores and {others - 1} workers would allow "
        f"{last.bound(others - 1, others):,.0f} documents/s."
        for others in (8, 32)
    ]
    return "\n\n".join([f"{describe_run()}:", format_table(head, rows), "\n".join(extrapolated)])


def plot(gains: Sequence[Gain], cores: int) -> str:
    """Return the picture: documents per second over the number of workers, and what each part costs."""
    none = gains[0].none
    runs = {0: none, **{each.run.workers: each.run for each in gains}}
    bounds = {0: 1e6 / none.coordinator_us} | {n: runs[n].bound(n, cores) for n in runs if n}
    panels = [
        Panel(
            title="Documents per second",
            lines={"bound": bounds, "measured": {n: each.per_second for n, each in runs.items()}},
        ),
        Panel(
            title="CPU µs a document",
            lines={
                "daemon": {n: each.coordinator_us for n, each in runs.items()},
                "workers": {n: each.worker_us for n, each in runs.items()},
            },
        ),
    ]
    return draw("Documents per second and CPU time over the number of workers", "workers", panels)


def _format_row(run: Measured, ratio: float, bound: float) -> list[str]:
    rates = [f"{run.per_second:,.0f}", f"{ratio:.2f}", f"{bound:,.0f}"]
    return [str(run.workers), *rates, f"{run.coordinator_us:.0f}", f"{run.worker_us:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--target", choices=["null", "postgres"], default="null")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--note", action="store_true", help="write the figures into the documentation")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        target = Target()
        if given.target == "postgres":
            server = stack.enter_context(Postgres())
            target = Target(f'{{ type: postgres, dsn: "{server.dsn}" }}', "table: rows", server.dsn)
        gains = compare(given.docs, given.workers, given.pairs, target)
    text = format_figures(gains, cores)
    print(json.dumps(to_json(gains, cores)) if given.json else text)
    if given.note:
        picture = IMAGES / f"workers-{given.target}.svg"
        picture.write_text(plot(gains, cores))
        text += f"\n\n![Documents per second over the number of workers](../images/{picture.name})"
        write_between_marks(PAGE, text, mark=f"workers-{given.target}")


if __name__ == "__main__":
    main()
