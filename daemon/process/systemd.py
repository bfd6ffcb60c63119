"""Notifications to systemd, as datagrams to the socket that NOTIFY_SOCKET names.

The protocol is sd_notify(3) and sd_watchdog_enabled(3): lines of `NAME=value`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from pillows.clock import Clock

#: How long a datagram may wait for a busy manager to make room.
_SEND_TIMEOUT_SECONDS = 1.0
_RETRY_SECONDS = 0.02


class Notifier:
    """Sends the daemon's state to its service manager; does nothing if there is none.

    A datagram that cannot be sent within a second is dropped: a manager that is gone or busy must not
    block the daemon. Status and watchdog are sent again with the next tick.

    Args:
        environ: holds NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
        clock: for the watchdog's interval.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading `@` stands for the NUL byte of an abstract socket (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.settimeout(_SEND_TIMEOUT_SECONDS)
        self._turn = BoundedSemaphore()  # gevent lets one greenlet at a time wait for a socket
        self._clock = clock
        self._watchdog_seconds = _watchdog_seconds(environ)
        self._fed_at = float("-inf")
        self._status = ""
        self._is_stopping = False

    def ready(self) -> None:
        """Report that the pillows are started; no longer once the drain has begun."""
        if not self._is_stopping:
            self._send("READY=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Report the beginning of a reload, and its end.

        systemd compares MONOTONIC_USEC with the time of its own request: sd_notify(3), `RELOADING=1`.
        """
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")
        try:
            yield
        finally:
            self.ready()

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows; send it when it changes."""
        if text != self._status and self._send(f"STATUS={text}", wait_seconds=0.0):
            self._status = text

    def alive(self) -> None:
        """Reset the watchdog, twice within the time that systemd allows."""
        now = self._clock.monotonic()
        is_due = self._watchdog_seconds is not None and now - self._fed_at >= self._watchdog_seconds / 2
        if is_due and self._send("WATCHDOG=1", wait_seconds=0.0):
            self._fed_at = now

    def stopping(self) -> None:
        """Report that the drain has begun."""
        self._is_stopping = True
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask the manager to wait `seconds` more, from now, for the daemon to stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, *, wait_seconds: float = _SEND_TIMEOUT_SECONDS) -> bool:
        if not self._turn.acquire(blocking=wait_seconds > 0):
            return False
        try:
            give_up_at = self._clock.monotonic() + wait_seconds
            while self._socket is not None:
                try:
                    if self._socket.sendto(message.encode(), self._address):
                        return True
                except OSError:
                    return False
                # gevent returns 0 while the manager has no room: such a socket always seems writable.
                if self._clock.monotonic() >= give_up_at:
                    return False
                self._clock.wait(Event(), _RETRY_SECONDS)
            return False
        finally:
            self._turn.release()


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return the interval of the watchdog; None if this process has none."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000
