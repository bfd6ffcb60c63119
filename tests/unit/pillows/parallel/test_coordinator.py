"""Two queues and worker processes, as a program without the daemon uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from textwrap import dedent

import gevent
import psutil
import pytest

from pillows import Coordinator, Ranges, WorkerLimits
from pillows.errors import ConfigError, FatalError, PermanentError
from pillows.parallel.coordinator import MAX_AUTO_WORKERS, count_workers
from tests.support import worker_functions as functions
from tests.support.sizes import size
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[4]


def values(coordinator, tasks):
    return [each.value for each in coordinator.run(tasks)]


def test_b2_b3_a_worker_gets_plain_data_and_opens_and_closes_its_own_connection():
    """It inherits no descriptor but its socket, and has as many after 100 tasks as before."""
    with Coordinator(functions.describe, connect=functions.connect, workers=2) as coordinator:
        pids = set(coordinator.pids)
        found = values(coordinator, [(number, "a", None, [1.5]) for number in range(100)])
    assert {each["pid"] for each in found} <= pids
    assert os.getpid() not in pids
    assert all(each["pid"] == each["connection"] and each["sockets"] == 1 for each in found)
    assert all(len(set(fds)) == 1 for fds in _by_worker(found, "fds").values())
    assert sorted(each["task"] for each in found) == [[number, "a", None, [1.5]] for number in range(100)]


def _by_worker(found, name):
    return {each["pid"]: [one[name] for one in found if one["pid"] == each["pid"]] for each in found}


def test_b6_results_arrive_in_any_order():
    with Coordinator(functions.sleep, workers=2) as coordinator:
        assert values(coordinator, [(1.0,), (0.01,), (0.0,)])[-1] == 1.0


def test_tasks_are_taken_from_their_source_only_as_they_are_needed():
    taken = []

    def tasks():
        for number in range(1000):
            taken.append(number)
            yield (number,)

    with Coordinator(functions.echo, workers=1) as coordinator:
        results = coordinator.run(tasks())
        next(results)
        assert len(taken) < 10
        results.close()
        assert [each.value for each in coordinator.run([("again",)])] == [["again"]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_b7_a_worker_that_dies_is_replaced_and_its_task_is_tried_again(tmp_path, number):
    with Coordinator(functions.die_once, workers=1) as coordinator:
        assert values(coordinator, [(str(tmp_path / "mark"), int(number))]) == ["survived"]


def test_b7_workers_killed_from_outside_lose_nothing(tmp_path):
    with Coordinator(functions.sleep, workers=2, max_tries=100) as coordinator:

        def kill():
            for _ in range(size(ci=5, proof=50)):
                gevent.sleep(0.2)
                os.kill(coordinator.pids[0], signal.SIGKILL)

        killer = gevent.spawn(kill)
        found = Counter(values(coordinator, [(n / 100_000,) for n in range(size(ci=300, proof=5000))]))
        killer.get()
        assert len(found) == size(ci=300, proof=5000)
        assert set(found.values()) == {1}


def test_a_worker_that_stops_answering_is_killed_and_its_task_is_tried_again(tmp_path):
    limits = WorkerLimits(hang_seconds=0.5)
    with Coordinator(functions.stop_once, workers=1, limits=limits) as coordinator:
        assert values(coordinator, [(str(tmp_path / "mark"),)]) == ["survived"]


def test_a_worker_that_has_grown_is_replaced_after_its_task():
    limits = WorkerLimits(memory_bytes=100 * 2**20, hang_seconds=None)
    with Coordinator(functions.take_memory, workers=1, limits=limits) as coordinator:
        first, second, *_ = values(coordinator, [(120 * 2**20,), (1,), (1,)])
        wait_until(lambda: coordinator.pids and first not in coordinator.pids)
        assert first == second or second in coordinator.pids  # the next task may have been given already


def test_a_task_that_kills_every_worker_fails_and_the_others_go_on():
    with Coordinator(functions.die, workers=2, max_tries=2) as coordinator:
        (finished,) = coordinator.run([("x",)])
        assert str(finished.error) == "Its worker ended: killed (SIGKILL)."
        assert finished.task == ("x",)


def test_b8_a_range_that_fails_is_listed_and_can_be_done_alone(tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    monkeypatch.setenv("PILLOWD_TEST_GATE", str(gate))
    with Ranges(tmp_path / "work") as ranges, Coordinator(functions.count_range, workers=2) as coordinator:
        ranges.plan(range(10, 100, 10))
        assert sum(value for _, value in coordinator.work(ranges)) == 90
        ((failed, reason),) = ranges.failed()
        assert (failed.begin, failed.end, reason) == (50, 60, "key 50 is bad")
        assert list(coordinator.work(ranges)) == []
        gate.touch()
        ranges.retry(failed.number)
        assert list(coordinator.work(ranges)) == [(failed, 10)]
        assert sum(value for _, value in ranges.results()) == 100


PROGRAM = """
    import sys, time
    from pillows import Coordinator, Ranges

    def work(begin, end):
        time.sleep(0.02)
        return [begin, end]

    if __name__ == "__main__":
        with Ranges(sys.argv[1]) as ranges, Coordinator(work, workers=2) as coordinator:
            ranges.plan(range(1, 20))
            print(*coordinator.pids, flush=True)
            for done, value in coordinator.work(ranges):
                print(done.number, flush=True)
            print("complete", len(list(ranges.results())), flush=True)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(dedent(PROGRAM))
    environ = os.environ | {"PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(path), str(tmp_path / "work")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)

    return start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_b9_the_workers_end_with_their_program_and_the_next_run_goes_on(program, number):
    with program() as first:
        workers = [int(pid) for pid in first.stdout.readline().split()]
        done = {first.stdout.readline() for _ in range(5)}
        first.send_signal(number)
        rest = set(first.stdout.read().splitlines(keepends=True))
        first.wait(10)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers), seconds=10)
    with program() as second:
        again = second.stdout.read().splitlines(keepends=True)[1:]
    assert again.pop() == "complete 20\n"
    assert not (done | rest) & set(again)  # what was said to be done is not done again


@pytest.mark.parametrize(("kind", "tries"), [("retryable", 3), ("value", 3), ("permanent", 1)])
def test_b11_the_class_of_an_error_decides_whether_it_is_tried_again(kind, tries, monkeypatch):
    submitted = []
    with Coordinator(functions.fail, workers=1) as coordinator:
        pool = coordinator._opened
        submit = pool.submit
        monkeypatch.setattr(pool, "submit", lambda *a, **k: (submitted.append(a[0]), submit(*a, **k)))
        (finished,) = coordinator.run([(kind, "RetryableError: 429 later")])  # a text decides nothing
    assert len(submitted) == tries
    assert "429 later" in str(finished.error)
    assert isinstance(finished.error, PermanentError) == (kind == "permanent")


def test_the_functions_of_a_program_share_its_globals(tmp_path):
    program = """
        from pillows import Coordinator
        opened = []

        def connect():
            opened.append(1)
            return "connection"

        def work(connection):
            return [connection, len(opened)]

        if __name__ == "__main__":
            with Coordinator(work, connect=connect, workers=1) as coordinator:
                print([each.value for each in coordinator.run([()])], opened)
    """
    (tmp_path / "program.py").write_text(dedent(program))
    command = [sys.executable, str(tmp_path / "program.py")]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[['connection', 1]] []\n"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (functions.fail_oddly, "PillowError"),
        (functions.return_object, "objects of type object is unsupported"),
    ],
)
def test_whatever_a_function_raises_or_returns_is_told(function, why):
    with Coordinator(function, workers=1, max_tries=1) as coordinator:
        (finished,) = coordinator.run([()])
    assert why in str(finished.error)


def test_b11_a_fatal_error_ends_the_run():
    with (
        pytest.raises(FatalError, match="no way"),
        Coordinator(functions.fail, workers=1) as coordinator,
    ):
        list(coordinator.run([("fatal", "no way")]))


def test_b10_the_end_of_a_run_interrupts_a_pause_before_a_retry():
    with Coordinator(functions.fail, workers=1, max_tries=1000) as coordinator:
        results = coordinator.run([("retryable", "later")])
        waiting = gevent.spawn(next, results)
        wait_until(lambda: coordinator._pauses)
        waiting.kill()
        began = time.monotonic()
        results.close()
        assert not coordinator._attempts
    assert time.monotonic() - began < 10  # the pauses grow up to a minute


def test_a_worker_that_cannot_connect_says_why():
    with (
        pytest.raises(FatalError, match=r"does not let us in\. Remedy: set a password"),
        Coordinator(functions.describe, connect=functions.refuse_to_connect, workers=1) as coordinator,
    ):
        list(coordinator.run([("x",)]))


def test_without_workers_a_further_run_is_refused_too():
    with Coordinator(functions.describe, connect=functions.refuse_to_connect, workers=1) as coordinator:
        for _ in range(2):
            with pytest.raises(FatalError, match="does not let us in"), gevent.Timeout(60):
                list(coordinator.run([("x",)]))


def test_a_function_that_no_other_process_can_import_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"cannot import .*lambda.*Remedy: write it with `def`"):
        Coordinator(lambda: None)


def test_auto_leaves_a_core_to_the_coordinator(monkeypatch):
    for cores, expected in ((1, 1), (2, 1), (4, 3), (64, MAX_AUTO_WORKERS)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert count_workers("auto") == expected
    assert count_workers(3) == 3


def test_after_its_with_a_coordinator_is_refused_and_no_worker_is_left():
    coordinator = Coordinator(functions.echo, workers=2)
    with coordinator:
        pids = coordinator.pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(RuntimeError):
        Coordinator(functions.echo).pids  # noqa: B018


def test_b12_importing_and_using_it_leaves_signals_logging_and_warnings_alone():
    code = """
        import logging, signal, warnings
        def state():
            handlers = [signal.getsignal(each) for each in signal.valid_signals()]
            return list(logging.root.handlers), handlers, list(warnings.filters)
        before = state()
        from pillows import Coordinator, Ranges
        from tests.support import worker_functions
        with Coordinator(worker_functions.echo, workers=1) as coordinator:
            assert [each.value for each in coordinator.run([(1,)])] == [[1]]
        assert state() == before
    """
    subprocess.run([sys.executable, "-c", dedent(code)], cwd=ROOT, check=True, timeout=60)
