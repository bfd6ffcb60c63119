"""sd_notify against a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from daemon.process.systemd import Notifier
from pillows.clock import SystemClock
from tests.support.clock import FakeClock


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and its address as NOTIFY_SOCKET spells it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@pillowd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.setblocking(False)
        yield name, listener


def received(listener: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_the_whole_life_is_told(manager: tuple[str, socket.socket]) -> None:
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address}, FakeClock(auto=False))
    notifier.ready()
    notifier.status("3 pillows: 3 live")
    notifier.status("3 pillows: 3 live")
    notifier.stopping()
    notifier.extend(2.5)
    notifier.close()

    assert received(listener) == [
        "READY=1",
        "STATUS=3 pillows: 3 live",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=2500000",
    ]


def test_the_watchdog_is_fed_twice_within_its_interval(manager: tuple[str, socket.socket]) -> None:
    address, listener = manager
    clock = FakeClock(auto=False)
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"}, clock)
    for _ in range(60):
        notifier.alive()
        clock.advance(1)
    notifier.close()

    assert received(listener) == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
def test_no_watchdog_where_none_is_asked_of_this_process(
    manager: tuple[str, socket.socket], environ: dict[str, str]
) -> None:
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address} | environ, FakeClock(auto=False))
    notifier.alive()
    notifier.close()

    assert received(listener) == []


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({}, FakeClock(auto=False))
    notifier.ready()
    notifier.alive()
    notifier.close()


def test_a_manager_that_is_gone_does_not_harm_and_the_status_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(path)}, FakeClock(auto=False))
    notifier.status("starting")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        notifier.status("starting")
        assert received(listener) == ["STATUS=starting"]
    notifier.close()
    notifier.close()


def test_two_may_send_while_the_manager_is_busy(manager: tuple[str, socket.socket]) -> None:
    """For example, a reload and the supervisor's tick send at the same time."""
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address}, SystemClock())
    for _ in range(8):  # the buffer of one sender is full before the queue of the receiver
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"x", listener.getsockname())
    sending: list[Any] = [gevent.spawn(notifier.ready), gevent.spawn(notifier.stopping)]
    gevent.sleep(0.05)
    assert not any(each.ready() for each in sending), "the manager has no room"
    notifier.status("3 pillows")  # is not waited for: it is sent again with the next tick
    found: list[str] = []
    while not all(each.ready() for each in sending):
        found += received(listener)
        gevent.sleep(0.01)
    assert [each.exception for each in sending] == [None, None]
    assert {"READY=1", "STOPPING=1"} <= {*found, *received(listener)}
    notifier.close()
