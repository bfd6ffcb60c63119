from __future__ import annotations

import os
import signal

import gevent
import pytest

from daemon.process.signals import handle_signals, track_sigint
from tests.support.waiting import wait_until


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop_and_the_second_cuts_it_short(number: int) -> None:
    with handle_signals() as signals:
        send(number)
        assert signals.stop.wait(timeout=60)
        assert not signals.force_stop.is_set()
        send(number)
        assert signals.force_stop.wait(timeout=60)


def test_a_waiting_hub_is_woken_at_once() -> None:
    with handle_signals() as signals:
        gevent.spawn_later(0.05, send, signal.SIGTERM)
        with gevent.Timeout(60):
            assert signals.stop.wait(timeout=60)


def test_hup_is_only_counted() -> None:
    with handle_signals() as signals:
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        wait_until(lambda: signals.reloads >= 1)
        assert not signals.stop.is_set()


def test_the_handlers_of_before_are_put_back_even_after_an_error() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    def fail_inside() -> None:
        with handle_signals():
            assert [signal.getsignal(number) for number in numbers] != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert [signal.getsignal(number) for number in numbers] == before


def test_i7_the_first_interrupt_is_remembered_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with track_sigint() as came:
        send(signal.SIGINT)
        assert came.wait(timeout=60)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is what this is about
def test_an_interrupt_is_remembered_where_python_ignores_the_exception() -> None:
    class Dropped:
        def __del__(self) -> None:
            send(signal.SIGINT)

    with track_sigint() as came:
        Dropped()
        assert came.is_set()
