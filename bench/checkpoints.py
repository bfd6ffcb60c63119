"""Stores compared with the raw disk: `python -m bench.checkpoints [--seconds S] [--json FILE]`.

Every part runs in a process of its own: plain Python, or patched by gevent as the daemon is.

- durable syncs per second of a POD of 1, 8, 100, 1,000 keys, and of the bare loop of write, fsync, rename
  and fsync of the directory with the same bytes on the same disk; they take turns, call by call, so that
  both see the same neighbours, and of each the first quartile counts, which they disturb least;
- opening 100,000 keys: seconds and memory;
- gets and sets per second of a SharedPOD with 1, 2 and 4 client processes;
- what 200 pillows with tokens of 4 kB cost that each save a checkpoint per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoints import POD, Checkpoint, CheckpointStore, Seq, SharedPOD, TailKey

KEYS = (1, 8, 100, 1000)
VALUE = {"seq": "42-" + "g1AAAAFTeJzLYWBg4" * 8, "n": 1, "saved_at": 1.5}  # about 200 bytes


def syncs(folder: Path, seconds: float) -> dict[str, Any]:
    """Durable syncs per second by number of keys: `pod`, `raw`, and `ratio` of the two."""
    return {str(keys): _compare(folder / str(keys), keys, seconds / len(KEYS)) for keys in KEYS}


def _compare(folder: Path, keys: int, seconds: float) -> dict[str, float]:
    folder.mkdir(parents=True)
    with POD(folder / "pod", sync_at=None, sync_interval=None) as pod:
        pod.update({f"key {number}": VALUE for number in range(keys)})
        pod.sync()
        content = (folder / "pod" / "0.json").read_bytes()
        directory = os.open(folder, os.O_RDONLY)
        count = iter(range(10**9))

        def update() -> None:
            number = next(count)
            pod[f"key {number % keys}"] = {**VALUE, "n": number}
            pod.sync()

        took: dict[str, list[float]] = {"pod": [], "raw": []}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            took["raw"].append(_seconds(lambda: _replace(directory, content)))
            took["pod"].append(_seconds(update))
        os.close(directory)
    quartile = {name: statistics.quantiles(each, n=4)[0] for name, each in took.items()}
    rates = {name: 1 / each for name, each in quartile.items()}
    return rates | {"ratio": rates["pod"] / rates["raw"]}


def _replace(directory: int, content: bytes) -> None:
    fd = os.open("raw.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640, dir_fd=directory)
    os.write(fd, content)
    os.fsync(fd)
    os.close(fd)
    os.rename("raw.tmp", "raw", src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _rate(call: Callable[[], None], seconds: float) -> float:
    began = time.perf_counter()
    calls = 0
    while (took := time.perf_counter() - began) < seconds:
        call()
        calls += 1
    return calls / took


def fill(folder: Path, _seconds: float) -> dict[str, Any]:
    """Makes the store of 100,000 keys."""
    with POD(folder / "large", sync_at=None, sync_interval=None) as pod:
        began = time.perf_counter()
        pod.update({f"key {number}": VALUE for number in range(100_000)})
        pod.sync()
        return {"fill_seconds": time.perf_counter() - began}


def large(folder: Path, _seconds: float) -> dict[str, Any]:
    """Opens it: seconds, and resident megabytes before and after."""
    before = _megabytes()
    began = time.perf_counter()
    with POD(folder / "large") as pod:
        opened = time.perf_counter() - began
        assert len(pod) == 100_000
        return {"open_seconds": opened, "megabytes_before": before, "megabytes": _megabytes()}


def _megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def shared(folder: Path, seconds: float) -> dict[str, Any]:
    """Gets and sets per second of all clients together, by number of clients."""
    with SharedPOD(folder / "shared", {f"key {n}": VALUE for n in range(100)}, durable=False) as store:
        return {
            f"{clients} {what}": _clients(store, folder / "shared", clients, what, seconds / 6)
            for clients in (1, 2, 4)
            for what in ("gets", "sets")
        }


def _clients(store: SharedPOD, path: Path, clients: int, what: str, seconds: float) -> float:
    command = [sys.executable, "-m", "bench.checkpoints", "--part", what, "--folder", str(path)]
    command += ["--seconds", str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    rates: list[float] = []

    def read(process: subprocess.Popen[str]) -> None:
        rates.append(json.loads(process.communicate()[0])["rate"])

    readers = [threading.Thread(target=read, args=(process,)) for process in running]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(store) == 100
    return sum(rates)


def gets(path: Path, seconds: float) -> dict[str, Any]:
    """One client that reads."""
    with SharedPOD.connect(path) as store:
        count = iter(range(10**9))
        return {"rate": _rate(lambda: store[f"key {next(count) % 100}"], seconds)}


def sets(path: Path, seconds: float) -> dict[str, Any]:
    """One client that writes."""
    with SharedPOD.connect(path) as store:
        count = iter(range(10**9))
        return {"rate": _rate(lambda: store.update({f"key {next(count) % 100}": VALUE}), seconds)}


def pillows(folder: Path, seconds: float) -> dict[str, Any]:
    """200 pillows that save a token of 4 kB each second: which part of a core, and how long a save takes."""
    import gevent  # noqa: PLC0415 - only this part needs it: the others run in plain Python too

    keys = [TailKey(f"pillow {number}", "couch/database") for number in range(200)]
    took: list[float] = []

    def tail(store: CheckpointStore, key: TailKey, began: float) -> None:
        for second in range(1, int(seconds) + 1):
            seq = Seq.of(f"{second}-" + "x" * 4000)
            gevent.sleep(max(began + second - time.monotonic(), 0))
            start = time.monotonic()
            store.save(key, Checkpoint(seq=seq, changes=second, saved_at=time.time()))
            took.append(time.monotonic() - start)

    with CheckpointStore(folder / "pillows") as store:
        for key in keys:
            store.save(key, Checkpoint(seq=Seq.BEGINNING, saved_at=time.time()))
        began, used = time.monotonic(), time.process_time()
        gevent.joinall([gevent.spawn(tail, store, key, began) for key in keys], raise_error=True)
        wall, cpu = time.monotonic() - began, time.process_time() - used
    return {
        "saves_per_second": len(took) / wall,
        "core": cpu / wall,
        "median_ms": statistics.median(took) * 1000,
        "p99_ms": statistics.quantiles(took, n=100)[98] * 1000,
    }


PARTS = {part.__name__: part for part in (syncs, fill, large, shared, gets, sets, pillows)}
RUN = (
    ("syncs", False), ("syncs", True), ("fill", False), ("large", False), ("large", True),
    ("shared", True), ("shared", False), ("pillows", True),
)  # fmt: skip


def measure(part: str, folder: Path, seconds: float, *, patched: bool) -> dict[str, Any]:
    """One part, in a process of its own."""
    command = [sys.executable, "-m", "bench.checkpoints", "--part", part, "--folder", str(folder)]
    command += ["--seconds", str(seconds)] + ["--patched"] * patched
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="for each part")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="on which disk; a temporary one")
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part](given.folder, given.seconds)))
        return
    figures = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for part, patched in RUN:
            name = f"{part} ({'gevent' if patched else 'plain'})"
            place = Path(folder) / ("large" if part in {"fill", "large"} else name.replace(" ", "-"))
            figures[name] = measure(part, place, given.seconds, patched=patched)
            print(name)
            for what, figure in figures[name].items():
                print(f"  {what:>16}  {_shown(figure)}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))


def _shown(figure: float | dict[str, float]) -> str:
    if isinstance(figure, dict):
        return "  ".join(f"{name} {_shown(value)}" for name, value in figure.items())
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


if __name__ == "__main__":
    if "--patched" in sys.argv:
        from gevent import monkey

        monkey.patch_all()
    main()
