"""`BulkPusher` and `ParallelWriter` in an ordinary program, in which nothing is patched for gevent.

Each test is a program of its own. It waits for what must happen, never for a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import dedent

import pytest

from tests.support.program import Programs, programs_after

HEAD = """
import io, threading
from gevent import monkey
from pillows import BulkOptions, BulkPusher, ParallelWriter
from pillows.standalone.bulk_pusher import BulkOutcome, PusherClosed
from pillows.errors import RetryableError
from pillows.standalone.parallel_writer import ParallelError

LONG = 60

class File(io.BytesIO):
    def __init__(self, before=lambda: None):
        super().__init__()
        self.before = before

    def write(self, data):
        self.before()
        return super().write(data)

def together(*calls):
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()

def until(condition):
    tick = threading.Event()
    for _ in range(LONG * 100):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never came")
"""

TAIL = """
assert not monkey.is_module_patched("threading")
print("done")
"""


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with programs_after(HEAD) as programs:
        yield programs


@pytest.fixture
def run(programs: Programs) -> Callable[[str], None]:
    def run(program: str) -> None:
        assert programs.run(dedent(program) + TAIL) == "done\n"

    return run


# --- ParallelWriter


def test_files_are_written_at_the_same_time(run):
    run("""
        meet = threading.Barrier(3, timeout=LONG)
        files = [File(meet.wait) for _ in range(3)]
        assert ParallelWriter(files).write(b"abc") == 3
        assert [file.getvalue() for file in files] == [b"abc"] * 3
    """)


def test_failures_are_told_with_their_files(run):
    run("""
        def fail(): raise OSError("full")
        def leave(): raise SystemExit(3)
        try:
            ParallelWriter([File(fail), File(), File(leave)]).write(b"abc")
        except ParallelError as error:
            assert list(error.errors) == [0, 2] and error.results == {1: 3}, error
            assert "file 0: OSError: full" in str(error)
        else:
            raise AssertionError
    """)


def test_a_call_that_takes_too_long_is_not_waited_for_and_no_other_is_made_meanwhile(run):
    run("""
        go = threading.Event()
        slow, calls = File(lambda: go.wait(LONG)), []
        writer = ParallelWriter([slow], timeout_seconds=0.1)
        for reason in ("may have taken effect or not", "this one was not made"):
            try:
                writer.write(b"abc")
            except ParallelError as error:
                assert isinstance(error.errors[0], TimeoutError) and reason in str(error), error
            else:
                raise AssertionError
        go.set()
        until(lambda: slow.getvalue() == b"abc")
        until(lambda: threading.active_count() == 1)
        assert ParallelWriter([slow]).write(b"d") == 1
        assert slow.getvalue() == b"abcd"
    """)


def test_threads_take_turns_and_every_file_sees_the_same_order(run):
    run("""
        files = [File(), File(), File()]
        writer = ParallelWriter(files)
        def write(letter):
            for _ in range(50):
                writer.write(letter)
        together(*(lambda letter=letter: write(letter) for letter in (b"a", b"b", b"c", b"d")))
        assert len(files[0].getvalue()) == 200
        assert files[0].getvalue() == files[1].getvalue() == files[2].getvalue()
    """)


def test_so_many_are_written_at_once(run):
    run("""
        lock, now, most = threading.Lock(), 0, 0
        meet = threading.Barrier(2, timeout=LONG)
        def enter():
            global now, most
            with lock:
                now += 1
                most = max(most, now)
            meet.wait()
            with lock:
                now -= 1
        assert ParallelWriter([File(enter) for _ in range(6)], max_parallel=2).write(b"x") == 1
        assert most == 2, most
    """)


# --- BulkPusher


@pytest.mark.parametrize(
    "settings", ["threshold=10, max_age_seconds=0.05", "threshold=9, max_age_seconds=1000"]
)
def test_a_bulk_is_written_without_a_further_push(run, settings):
    run(f"""
        taken = []
        pusher = BulkPusher(lambda documents: taken.extend(documents), BulkOptions({settings}))
        for n in range(9):
            pusher.push({{"_id": str(n)}})
        until(lambda: len(taken) == 9)
        assert pusher.finish().ok == 9
        until(lambda: threading.active_count() == 1)
    """)


@pytest.mark.parametrize("count", [1, 4])
def test_threads_push_and_the_order_of_each_id_is_kept(run, count):
    run(f"""
        taken = []
        options = BulkOptions(threshold=7, max_in_flight={count})
        pusher = BulkPusher(lambda documents: taken.extend(documents), options)
        def push(name):
            for n in range(300):
                pusher.push({{"_id": f"{{name}}{{n % 5}}", "n": n}})
        together(*(lambda name=name: push(name) for name in "abcd"))
        assert pusher.finish().ok == 1200 and pusher.waiting == 0
        import json
        seen = {{}}
        for document in taken:
            seen.setdefault(document.id, []).append(json.loads(document.body)["n"])
        assert len(seen) == 20
        assert all(numbers == sorted(numbers) for numbers in seen.values())
    """)


def test_bulks_of_several_lanes_are_in_flight_at_the_same_time(run):
    run("""
        meet = threading.Barrier(2, timeout=LONG)
        def write(documents):
            meet.wait()
        with BulkPusher(write, BulkOptions(threshold=1, max_in_flight=2)) as pusher:
            for _ in range(20):
                pusher.push({"_id": "a"})  # another partition than "d"
                pusher.push({"_id": "d"})
        assert pusher.counts.ok == 40
    """)


def test_push_waits_while_no_more_bulks_may_wait(run):
    run("""
        most, go = 0, threading.Event()
        def write(documents):
            global most
            go.wait(LONG)
            most = max(most, pusher.waiting)
        pusher = BulkPusher(write, BulkOptions(threshold=10, jobsbuffersizemax=3, max_age_seconds=1000))
        def push():
            for n in range(300):
                pusher.push({"_id": str(n)})
        pushing = threading.Thread(target=push, daemon=True)
        pushing.start()
        until(lambda: pusher.waiting == 51)
        go.set()
        pushing.join(LONG)
        assert pusher.finish().ok == 300
        assert most <= 51, most
    """)


def test_an_error_is_the_callers_and_what_is_tried_again_ends_with_close(run):
    run("""
        tried = threading.Event()
        def away(documents):
            tried.set()
            raise RetryableError("away")
        pusher = BulkPusher(away, BulkOptions(threshold=1, max_tries=1))
        pusher.push({"_id": "a"})
        try:
            pusher.finish()
        except RetryableError:
            assert pusher.counts.ok == 0
        else:
            raise AssertionError
        tried.clear()
        pusher = BulkPusher(away, BulkOptions(threshold=1, max_tries=None))
        pusher.push({"_id": "a"})
        assert tried.wait(LONG)
        pusher.close()
        until(lambda: threading.active_count() == 1)
        try:
            pusher.push({"_id": "b"})
        except PusherClosed:
            pass
        else:
            raise AssertionError
    """)


def test_a_function_that_would_end_the_thread_is_an_error_as_any_other(run):
    run("""
        import sys
        pusher = BulkPusher(lambda documents: sys.exit(3), BulkOptions(threshold=1))
        pusher.push({"_id": "a"})
        try:
            pusher.finish()
        except RuntimeError as error:
            assert "SystemExit(3)" in str(error)
        else:
            raise AssertionError
    """)


def test_flush_waits_for_all_acknowledgements(run):
    run("""
        with BulkPusher(lambda documents: None, BulkOptions(threshold=10, max_age_seconds=1000)) as pusher:
            for n in range(13):
                pusher.push({"_id": str(n)})
            assert pusher.flush().ok == 13
            pusher.push({"_id": "more"})
        assert pusher.finish().ok == 14
    """)
