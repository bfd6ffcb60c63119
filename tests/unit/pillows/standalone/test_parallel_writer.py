"""ParallelWriter on its own: every file gets every call, all are awaited, and they must agree."""

from __future__ import annotations

import copy
import gc
import io
import threading
from typing import Any

import gevent
import pytest

from pillows import ParallelWriter
from pillows.standalone.parallel_writer import DivergenceError, ParallelError


class Slow(io.BytesIO):
    """Takes its time, and notes what it did when."""

    def __init__(self, seconds: float = 0.0, fail: Exception | None = None) -> None:
        super().__init__()
        self.seconds, self.fail, self.done = seconds, fail, []

    def write(self, data):
        gevent.sleep(self.seconds)
        if self.fail:
            raise self.fail
        self.done.append(bytes(data))
        return super().write(data)


class Counted(Slow):
    """Notes in `now` that it is at work, and in `most` how many were at once."""

    now = most = 0

    def write(self, data):
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)
        try:
            return super().write(data)
        finally:
            Counted.now -= 1


def most_at_once(count: int, **settings: Any) -> int:
    Counted.most = 0
    ParallelWriter([Counted(0.02) for _ in range(count)], **settings).write(b"x")
    return Counted.most


def test_what_is_written_reaches_every_file_and_reads_agree():
    files = [io.BytesIO() for _ in range(3)]
    writer = ParallelWriter(files)
    assert writer.write(b"one\ntwo\n") == 8
    writer.seek(0)
    assert writer.read() == b"one\ntwo\n"
    writer.seek(0)
    assert list(writer) == [b"one\n", b"two\n"]
    assert [file.getvalue() for file in files] == [b"one\ntwo\n"] * 3
    assert not writer.closed
    writer.close()
    assert writer.closed


def test_files_are_written_at_the_same_time():
    assert most_at_once(5) == 5


def test_all_are_awaited_and_the_error_names_who_failed_with_the_others_results():
    files = [Slow(fail=OSError("full")), Slow(0.05), Slow(0.05)]
    with pytest.raises(ParallelError, match=r"write failed: file 0: OSError: full") as raised:
        ParallelWriter(files).write(b"abc")
    assert raised.value.results == {1: 3, 2: 3}
    assert [file.done for file in files] == [[], [b"abc"], [b"abc"]]


def test_two_failures_are_both_told():
    with pytest.raises(ParallelError) as raised:
        ParallelWriter([Slow(fail=OSError("full")), Slow(fail=ValueError("closed"))]).write(b"x")
    assert [type(error) for error in raised.value.errors.values()] == [OSError, ValueError]


@pytest.mark.parametrize("name", ["read", "readline", "tell", "getvalue"])
def test_files_that_answer_differently_raise_with_both_answers(name):
    one, two = io.BytesIO(b"one"), io.BytesIO(b"two!")
    two.seek(2) if name == "tell" else None
    with pytest.raises(DivergenceError, match="answered differently") as raised:
        getattr(ParallelWriter([one, two]), name)()
    assert len(set(map(str, raised.value.results))) == 2


def test_a_short_write_of_one_is_noticed():
    class Short(io.BytesIO):
        def write(self, data):
            return super().write(data[:2])

    with pytest.raises(DivergenceError, match="5, 2"):
        ParallelWriter([io.BytesIO(), Short()]).write(b"12345")


def test_iterating_notices_a_file_that_ends_early():
    lines = iter(ParallelWriter([io.BytesIO(b"a\nb\n"), io.BytesIO(b"a\n")]))
    assert next(lines) == b"a\n"
    with pytest.raises(DivergenceError, match="the end"):
        next(lines)


def test_single_lines_are_read_as_of_any_file():
    writer = ParallelWriter([io.BytesIO(b"a\nb\nc\n"), io.BytesIO(b"a\nb\n")])
    assert next(writer) == b"a\n"
    assert next(iter(writer)) == b"b\n"
    with pytest.raises(DivergenceError, match="the end"):
        next(writer)
    assert next(writer, None) is None


def test_values_and_methods_that_may_differ_do(tmp_path):
    files = [(tmp_path / name).open("wb") for name in "ab"]
    with ParallelWriter(files) as writer:
        assert writer.fileno() == files[0].fileno()
        assert writer.mode == "wb"
        with pytest.raises(DivergenceError):
            _ = writer.name


def test_a_call_that_takes_too_long_is_abandoned_and_the_others_count():
    files = [Slow(60), Slow()]
    with pytest.raises(ParallelError, match=r"file 0: TimeoutError: no answer within 0.2 s") as raised:
        ParallelWriter(files, timeout_seconds=0.2).write(b"x")
    assert raised.value.results == {1: 1}
    gevent.sleep(0.05)
    assert files[0].done == []


def test_no_write_begins_after_the_caller_was_killed():
    files = [Slow(0.05) for _ in range(4)]
    caller = gevent.spawn(ParallelWriter(files, max_parallel=1).write, b"x")
    gevent.sleep(0.07)
    caller.kill()
    begun = [len(file.done) for file in files]
    gevent.sleep(0.2)
    assert [len(file.done) for file in files] == begun
    assert sum(begun) < 4


def test_concurrent_callers_are_seen_in_the_same_order_by_every_file():
    files = [Slow(0.001), Slow(0.003), Slow()]
    writer = ParallelWriter(files)
    gevent.joinall([gevent.spawn(writer.write, b"%d," % n) for n in range(20)], raise_error=True)
    assert files[0].done == files[1].done == files[2].done
    assert len(files[0].done) == 20


def test_closing_closes_every_file_and_tells_of_all_that_failed():
    class Stuck(io.BytesIO):
        def close(self):
            super().close()
            raise OSError("disk gone")

    files = [Stuck(), io.BytesIO(), Stuck()]
    with pytest.raises(ParallelError, match=r"close failed: file 0: .*; file 2: "):
        ParallelWriter(files).close()
    assert all(file.closed for file in files)


def test_an_error_in_the_block_goes_before_one_of_closing():
    class Stuck(io.BytesIO):
        def close(self):
            raise OSError("disk gone")

    with pytest.raises(KeyError) as raised, ParallelWriter([Stuck(), io.BytesIO()]):
        raise KeyError("mine")
    assert "disk gone" in raised.value.__notes__[0]


def test_no_thread_and_no_greenlet_is_left_after_20_writers():
    def greenlets():
        gc.collect()
        return sum(isinstance(each, gevent.Greenlet) and not each.dead for each in gc.get_objects())

    before = threading.active_count(), greenlets()
    for _ in range(20):
        with ParallelWriter([io.BytesIO() for _ in range(3)]) as writer:
            writer.write(b"x")
    assert (threading.active_count(), greenlets()) == before


def test_a_writer_without_files_is_refused():
    with pytest.raises(ValueError, match="at least one file"):
        ParallelWriter([])
    with pytest.raises(ValueError, match="max_parallel"):
        ParallelWriter([io.BytesIO()], max_parallel=0)


def test_so_many_are_written_at_once():
    assert most_at_once(5, max_parallel=2) == 2


def test_a_copy_is_another_writer_on_the_same_files():
    writer = ParallelWriter([io.BytesIO()])
    copy.copy(writer).write(b"x")
    assert writer.getvalue() == b"x"


def test_what_the_files_do_not_have_the_writer_has_not():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ParallelWriter([io.BytesIO()]).nonsense
