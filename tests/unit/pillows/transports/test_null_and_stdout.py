"""The transports that keep nothing."""

from __future__ import annotations

import os
import sys
from io import BytesIO

import gevent
import msgspec
import pytest

from pillows.errors import FatalError
from pillows.models import WriteResult, write_version
from pillows.transports.base import TargetState
from pillows.transports.null import NullConnection, NullOutput, NullTransport
from pillows.transports.stdout import StdoutConnection, StdoutOutput, StdoutTransport
from tests.conformance.target import KEY, at, batch, document, gone


def test_null_counts_and_takes_everything() -> None:
    null = NullTransport("null", KEY, NullConnection(), {"docs": NullOutput()})
    assert null.open() == TargetState()
    null.acquire(at("0"))
    assert null.write(batch(document("a", 1, {"n": 1}, {"n": 2}), gone("b", 1))) == WriteResult()
    assert (null.batches, null.documents, null.rows) == (1, 2, 2)
    assert null.finish_pass(1) == 0
    null.close()
    assert not null.remembers


class Out:
    """Standard output as a buffer, or as a pipe."""

    def __init__(self, buffer: object) -> None:
        self.buffer = buffer


def stdout() -> StdoutTransport:
    return StdoutTransport("out", KEY, StdoutConnection(), {"docs": StdoutOutput()})


def test_stdout_prints_a_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = BytesIO()
    monkeypatch.setattr(sys, "stdout", Out(taken))
    out = stdout()
    out.open()
    out.acquire(at("0"))
    result = out.write(batch(document("a", 1, {"n": 1}), gone("b", 2), document("c", 1, {"n": object()})))
    assert set(result.dead) == {"c"}
    a, b = [msgspec.json.decode(line) for line in taken.getvalue().splitlines()]
    assert (a["_id"], a["_version"], a["doc"]) == ("a", write_version(1, 1), {"n": 1})
    assert (b["_id"], b["_deleted"]) == ("b", True)


def test_a_reader_that_does_not_keep_up_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pipe blocks the thread that writes, and not the hub."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        monkeypatch.setattr(sys, "stdout", Out(pipe))
        writer = gevent.spawn(stdout().write, batch(document("a", 1, {"text": "x" * 500_000})))
        turns = 0
        while turns < 5:
            gevent.sleep(0.01)
            turns += 1
        assert not writer.dead
        taken = 0
        while taken < 500_000:
            taken += len(gevent.get_hub().threadpool.apply(os.read, (reading, 65536)))
        assert writer.get(timeout=60) == WriteResult()
    os.close(reading)


def test_a_reader_that_has_gone_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    out = stdout()
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdout", Out(pipe))
        out.write(batch(document("a", 1, {"n": 1})))
        os.close(reading)
        with pytest.raises(FatalError, match="is gone"):  # noqa: PT012  # the system may notice late
            for n in range(100):
                out.write(batch(document("b", n, {"n": 1})))
                gevent.sleep(0.01)
