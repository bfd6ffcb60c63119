from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from daemon.logs.background_stream import BackgroundStream, redirect_standard_streams


class FullDisk(io.StringIO):
    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that nobody reads yet: its reading end, and its writing end as a stream."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def read_all(reading: int, last: str) -> str:
    """Read a pipe until a text has come."""
    text = ""
    while last not in text:
        text += os.read(reading, 1 << 16).decode()
    return text


def test_text_is_written_in_order() -> None:
    stream = io.StringIO()
    background = BackgroundStream(stream)
    for number in range(1000):
        background.write(f"{number}\n")
    assert background.drain(10)
    assert stream.getvalue().split() == [str(number) for number in range(1000)]


def test_c3_a_log_that_cannot_be_written_stops_nobody_and_the_loss_is_counted() -> None:
    stream = FullDisk()
    background = BackgroundStream(stream)
    background.write("one\n")
    background.write("two\n")
    assert background.drain(10)
    stream.full = False
    background.write("three\n")
    assert background.drain(10)

    assert stream.getvalue() == "(2 log lines lost: they could not be written)\nthree\n"


def test_c3_a_pipe_that_nobody_reads_never_waits_and_what_it_lost_is_counted(pipe: Any) -> None:
    reading, stream = pipe
    line = "x" * 999 + "\n"
    background = BackgroundStream(stream, max_waiting_chars=100_000)
    began = time.perf_counter()
    for _ in range(2000):
        background.write(line)
    assert time.perf_counter() - began < 1.0
    assert not background.drain(0.05)

    written = ""
    while written.count("x\n") < 100:
        written += os.read(reading, 1 << 16).decode()
    while not background.drain(0.01):
        written += os.read(reading, 1 << 16).decode()
    background.write("after\n")
    written += read_all(reading, "after")

    *lines, note, last = written.splitlines()
    assert last == "after"
    assert all(each == line.rstrip() for each in lines)
    assert note == f"({2000 - len(lines)} log lines lost: they could not be written)"


def test_c3_closing_gives_up_on_a_pipe_that_nobody_reads(pipe: Any) -> None:
    background = BackgroundStream(pipe[1])
    background.write("x" * 200_000)
    began = time.perf_counter()
    background.close()
    assert time.perf_counter() - began < 3.0


def test_a_closed_stream_raises_nothing(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        background = BackgroundStream(stream)
    background.write("lost\n")
    assert background.drain(10)


def test_c3_what_plugins_print_is_written_in_the_background(capfd: pytest.CaptureFixture[str]) -> None:
    with redirect_standard_streams() as error:
        print("printed")
        print("warned", file=sys.stderr)
        assert sys.stderr is error
    assert capfd.readouterr() == ("printed\n", "warned\n")


def test_bytes_for_the_buffer_are_written_by_their_writer(capfdbinary: Any) -> None:
    with redirect_standard_streams():
        sys.stdout.buffer.write(b"line\n")
        sys.stdout.buffer.flush()
    assert capfdbinary.readouterr().out == b"line\n"
