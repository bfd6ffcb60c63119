"""JSON lines under a crash, or a refusing disk, at every call that changes a file or makes it durable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from checkpoints import Checkpoint
from pillows.errors import RetryableError
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.transport import JsonlTransport
from tests.conformance.target import KEY, at, batch, document
from tests.support.failing_disk import Crash, FailingCalls

BATCHES = 4
#: The first output's segments are full after two batches, the second's never are.
OUTPUTS = {
    "docs": JsonlOutput(file="docs.jsonl", segment_size="250B"),
    "other": JsonlOutput(file="other.jsonl"),
}


@contextmanager
def on(disk: FailingCalls, folder: Path) -> Iterator[tuple[JsonlTransport, Checkpoint]]:
    """A process that writes to that disk until it ends, or crashes."""
    with disk.patched():
        one = JsonlTransport("files", KEY, JsonlConnection(folder=folder), OUTPUTS)
        try:
            checkpoint = _until_done(one.open).checkpoint or at("0")
            _until_done(lambda: one.acquire(checkpoint))
            yield one, checkpoint
        finally:
            one.close()  # what the system does for a dead process: it writes nothing


def _until_done(attempt: Callable[[], Any]) -> Any:
    for _ in range(3):
        try:
            return attempt()
        except RetryableError:
            pass
    return attempt()


def carry(disk: FailingCalls, folder: Path) -> int:
    """Writes batches from the checkpoint on, each again until it is taken. Returns the last that was."""
    taken = 0
    try:
        with on(disk, folder) as (jsonl, checkpoint):
            taken = checkpoint.changes
            for number in range(taken + 1, BATCHES + 1):
                moved = replace(checkpoint, changes=number)
                written = batch(
                    *(document(f"d{number}-{n}", 1, {"b": number}, other=[{"b": number}]) for n in "ab"),
                    checkpoint=moved,
                )
                _until_done(partial(jsonl.write, written))
                taken = number
    except Crash:
        pass
    return taken


def lines(folder: Path, output: str) -> list[int]:
    """The batch of every line of an output, in the order of its files."""
    found = []
    for path in sorted(folder.glob(f"{output}*jsonl*")):
        content = path.read_bytes()
        assert not content or content.endswith(b"\n"), path
        found += [msgspec.json.decode(line)["doc"]["b"] for line in content.splitlines()]
    return found


def assert_exact(folder: Path, at_least: int) -> None:
    """Assert that the files hold exactly the lines that were acknowledged, as many as the checkpoint says."""
    with on(FailingCalls(), folder) as (_, checkpoint):
        pass
    assert checkpoint.changes in (at_least, at_least + 1)
    expected = [number for number in range(1, checkpoint.changes + 1) for _ in "ab"]
    assert {output: lines(folder, output) for output in OUTPUTS} == dict.fromkeys(OUTPUTS, expected)


def calls(folder: Path) -> int:
    """How many calls it takes when nothing goes wrong."""
    disk = FailingCalls()
    folder.mkdir()
    assert carry(disk, folder) == BATCHES
    assert_exact(folder, BATCHES)
    return disk.calls


def fresh(folder: Path, *parts: object) -> Path:
    made = folder / "-".join(map(str, parts))
    made.mkdir()
    return made


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_at_every_call_leaves_exactly_the_acknowledged_lines(tmp_path: Path, done: bool) -> None:
    for number in range(1, calls(tmp_path / "clean") + 1):
        folder = fresh(tmp_path, number)
        taken = carry(FailingCalls(crashes_at=number, done=done), folder)
        assert_exact(folder, taken)
        assert carry(FailingCalls(), folder) == BATCHES
        assert_exact(folder, BATCHES)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_refusal_of_every_call_costs_no_line_and_doubles_none(tmp_path: Path, done: bool) -> None:
    for number in range(1, calls(tmp_path / "clean") + 1):
        folder = fresh(tmp_path, number)
        assert carry(FailingCalls(fails_at=number, done=done), folder) == BATCHES
        assert_exact(folder, BATCHES)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_soon_after_a_refusal_leaves_exactly_the_acknowledged_lines(
    tmp_path: Path, done: bool
) -> None:
    """A lost answer of the disk leaves open which manifest counts: a crash must find one that does."""
    for refused in range(1, calls(tmp_path / "clean") + 1):
        for crashed in range(refused + 1, refused + 9):
            folder = fresh(tmp_path, refused, crashed)
            taken = carry(FailingCalls(fails_at=refused, crashes_at=crashed, done=done), folder)
            assert_exact(folder, taken)


def test_finished_segments_may_be_taken_away_at_once(tmp_path: Path) -> None:
    """Whoever collects them need not wait for the next batch, or for the next start."""
    for number in range(1, calls(tmp_path / "clean") + 1):
        folder = fresh(tmp_path, number)
        carry(FailingCalls(crashes_at=number, done=True), folder)
        taken = _collect(folder)
        assert carry(FailingCalls(), folder) == BATCHES
        assert taken + lines(folder, "docs") == lines(folder, "other")


def _collect(folder: Path) -> list[int]:
    found = []
    for path in sorted(folder.glob("docs.*.jsonl")):
        found += [msgspec.json.decode(line)["doc"]["b"] for line in path.read_bytes().splitlines()]
        path.unlink()
    return found
