"""Parts compared with the packages that they replace: `python -m bench.peers.originals [--json FILE]`.

parallel_write and mpcouch are installed from PyPI into a folder of their own. tastypy no longer imports on
Python 3, so its use cases are shown alone. Each part runs in a process of its own, which takes turns with the
original's: plain Python, or patched by gevent.

- `lines`, `blocks`, `read`: 20,000 lines, and 200 MiB, to three files at once; and reading the lines again
  (parallel_write);
- `bulk`: 30,000 documents of about 190 bytes to CouchDB, a thousand a request (mpcouch, with its processes;
  it hangs where gevent has patched Python, so there it is plain all the same);
- `urls`: 2,000 keys put into a store and changed, and 200 tasks tried and done (tastypy).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.source import Source

PACKAGES = ("parallel_write==0.0.10", "mpcouch==0.2.7")
ROOT = Path(__file__).parents[2]
ORIGINALS = ROOT / "build" / "originals"

LINES = 20_000
LINE = "once upon a time there was a line of text, and it went to three files\n"
BLOCKS, BLOCK = 200, b"x" * 2**20
DOCUMENTS = 30_000
KEYS, TASKS = 2_000, 200


def _make_writer(who: str, files: list[Any]) -> Any:
    if who == "original":
        from parallel_write import Writer  # type: ignore[import-not-found]  # noqa: PLC0415 - installed by us

        return Writer(files)
    from pillows import ParallelWriter  # noqa: PLC0415 - not in the original's process

    return ParallelWriter(files)


def lines(who: str, folder: Path, _url: str) -> float:
    """Write lines to three files; return the seconds."""
    return _write(who, [(folder / f"{number}.txt").open("w") for number in range(3)], LINE, LINES)


def blocks(who: str, folder: Path, _url: str) -> float:
    """Write large blocks to three files; return the seconds."""
    return _write(who, [(folder / f"{number}.bin").open("wb") for number in range(3)], BLOCK, BLOCKS)


def _write(who: str, files: list[Any], piece: str | bytes, times: int) -> float:
    writer = _make_writer(who, files)
    began = time.perf_counter()
    with writer:
        for _ in range(times):
            writer.write(piece)
    return time.perf_counter() - began


def read(who: str, folder: Path, _url: str) -> float:
    """Read and compare the lines of three files; return the seconds."""
    for number in range(3):
        (folder / f"{number}.txt").write_text(LINE * LINES)
    files = [(folder / f"{number}.txt").open() for number in range(3)]
    reader = _make_writer(who, files)
    began = time.perf_counter()
    with reader:
        assert sum(1 for _ in reader) == LINES
    return time.perf_counter() - began


def bulk(who: str, _folder: Path, url: str) -> float:
    """Write documents to a database; return the seconds until all are stored."""
    documents = ({"_id": f"{n:08d}", "n": n, "text": "x" * 150} for n in range(DOCUMENTS))
    if who == "original":
        from mpcouch import mpcouchPusher  # type: ignore[import-not-found]  # noqa: PLC0415 - installed by us

        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it prints
        began = time.perf_counter()
        pusher = mpcouchPusher(url, limit=1000)
        for document in documents:
            pusher.pushData(document)
        pusher.finish()
        took = time.perf_counter() - began
        sys.stdout = sys.__stdout__
        return took
    from pillows import BulkOptions, BulkPusher  # noqa: PLC0415 - not in the original's process

    began = time.perf_counter()
    with BulkPusher(url, BulkOptions(threshold=1000, create=True)) as pusher:
        for document in documents:
            pusher.push(document)
    assert pusher.counts.ok == DOCUMENTS
    return time.perf_counter() - began


def urls(_who: str, folder: Path, _url: str) -> float:
    """Fill and change a store, and work through a list of tasks; return the seconds."""
    from checkpoints import POD, Tracker  # noqa: PLC0415 - not in the original's process

    began = time.perf_counter()
    with POD(folder / "urls.pod") as pod:
        for number in range(KEYS):
            pod[f"http://example.org/{number}"] = {"visits": 0}
        for number in range(KEYS):
            pod[f"http://example.org/{number}"]["visits"] += 1
    with Tracker(folder / "urls.tracker", max_tries=3) as tracker:
        tracker.add_many_if_absent([f"http://example.org/{number}" for number in range(TASKS)])
        for url in tracker.try_keys():
            tracker.mark_done(url)
    return time.perf_counter() - began


PARTS: dict[str, Callable[[str, Path, str], float]] = {
    each.__name__: each for each in (lines, blocks, read, bulk, urls)
}
#: Parts whose original still runs.
COMPARED = ("lines", "blocks", "read", "bulk")


def install_originals(folder: Path) -> None:
    """Install the originals into a folder, from PyPI, unless they are there."""
    if not (folder / "mpcouch").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*command, "--target", str(folder), *PACKAGES], check=True)


def measure(part: str, who: str, originals: Path, url: str = "", *, patched: bool) -> float:
    """Run one part in a process of its own; return the seconds that it took.

    Args:
        part: one of `PARTS`.
        who: `ours` or `original`.
        originals: where the originals are installed.
        url: of a CouchDB server, for `bulk`.
        patched: by gevent.
    """
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="pillowd-originals-", dir=memory) as folder:
        database = f"{url}/bench-{who}-{time.time_ns()}"
        command = [sys.executable, "-m", "bench.peers.originals", "--part", part, "--who", who]
        command += ["--folder", folder, "--url", database]
        paths = os.pathsep.join([str(ROOT), str(originals)])
        done = subprocess.run(
            command + ["--patched"] * patched,
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    if url:
        _drop(database)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _drop(database: str) -> None:
    """Delete a database, if the part has made it."""
    import requests  # noqa: PLC0415 - a part's process has not patched it yet

    requests.delete(database, timeout=60)


def compare(
    originals: Path, url: str, *, parts: tuple[str, ...] = tuple(PARTS), rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Return the least seconds of each part, ours and the original's; `ratio` is our speed by the original's.

    Args:
        originals: where the originals are installed.
        url: of a CouchDB server.
        parts: which.
        rounds: how often each is run; the least disturbed run counts.
    """
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        whos = ("ours", "original") if part in COMPARED else ("ours",)
        for patched in (False, True):
            least: dict[str, float] = {}
            for _ in range(rounds):
                for who in whos:
                    hangs = patched and (part, who) == ("bulk", "original")
                    took = measure(part, who, originals, url, patched=patched and not hangs)
                    least[who] = min(took, least.get(who, took))
            if "original" in least:
                least["ratio"] = least["original"] / least["ours"]
            found[f"{part} ({'gevent' if patched else 'plain'})"] = least
    return found


def compare_with(couch: Source, *, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Install the originals, and return what `compare` finds on a CouchDB server."""
    install_originals(ORIGINALS)
    login = ":".join(quote(each, safe="") for each in couch.auth or ())
    return compare(ORIGINALS, couch.url.replace("://", f"://{login}@" if login else "://", 1), rounds=rounds)


def main() -> None:
    """Run one part, or all of them with a server of their own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--who", choices=("ours", "original"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps({"seconds": PARTS[given.part](given.who, given.folder, given.url)}))
        return
    from tests.servers.couchdb.process import CouchDB  # noqa: PLC0415 - not in the parts' processes

    with (
        tempfile.TemporaryDirectory(prefix="pillowd-bench-") as folder,
        CouchDB(data_dir=Path(folder)) as couch,
    ):
        figures = compare_with(Source(url=couch.url, auth=couch.auth))
    for what, seconds in figures.items():
        shown = "  ".join(f"{name} {value:.2f}" for name, value in seconds.items())
        print(f"{what:>16}  {shown}{'' if 'ratio' in seconds else '  (the original does not run any more)'}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    if "--patched" in sys.argv:
        from gevent import monkey

        monkey.patch_all()
    main()
