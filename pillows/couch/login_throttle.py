"""Limit how often one set of credentials is sent while the server refuses it.

CouchDB 3.4 locks an account after five failures for some minutes, even for the right password, and checking
a wrong password takes the server most of a second. So refused credentials are sent at most twice in five
minutes, by all users of a connection together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gevent
from gevent.lock import Semaphore

from pillows.clock import Clock
from pillows.couch.errors import RefusedError
from pillows.errors import AccessError

#: Refusals after which nothing is sent, and for how long.
MAX_REFUSALS = 2
REFUSAL_SECONDS = 300.0

#: CouchDB checks the password first: a request without an answer by then has not been refused.
UNANSWERED_SECONDS = 5.0


class LoginThrottle:
    """Counts refusals of one set of credentials, and lets one request at a time test them.

    Until the server has accepted them once, and again after a refusal or a broken connection, one request
    at a time may carry them. Otherwise twenty pillows that start with a wrong password, or that return to a
    server where it was changed, would lock the account. Requests that are under way when it is changed
    cannot be called back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused_at: deque[float] = deque(maxlen=MAX_REFUSALS)
        self._accepted = False
        self._gate = Semaphore(1)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Send one request with credentials; wait first while another tests credentials not yet accepted.

        Raises:
            AccessError: they were refused too often just now; nothing may be sent.
        """
        with ExitStack() as waited:
            if not self._accepted:
                waited.enter_context(self._take_turn())
                self._check()
            if self._accepted:  # by the request that went first
                waited.close()
            yield

    @contextmanager
    def log_in(self) -> Iterator[None]:
        """Send the request that gets a token or a session, which may be refused as well.

        Raises:
            AccessError: as `attempt`; another request may have been refused since.
        """
        self._check()
        try:
            yield
        except RefusedError:
            self.record_refusal()
            raise

    def record_refusal(self) -> None:
        """Count a refusal of the credentials."""
        self._accepted = False
        self._refused_at.append(self._clock.monotonic())

    def record_success(self) -> None:
        """Forget all refusals: the server accepted the credentials."""
        self._accepted = True
        self._refused_at.clear()

    def record_broken_connection(self) -> None:
        """Test the credentials again: they may have been changed while the server was away."""
        self._accepted = False

    @contextmanager
    def _take_turn(self) -> Iterator[None]:
        """Wait for the gate; open it to the next request after `UNANSWERED_SECONDS`."""
        self._gate.acquire()
        timer = gevent.spawn_later(UNANSWERED_SECONDS, self._gate.release)
        try:
            yield
        finally:
            if not timer.ready():
                timer.kill(block=False)
                self._gate.release()

    def _check(self) -> None:
        if len(self._refused_at) < MAX_REFUSALS:
            return
        wait_seconds = self._refused_at[0] + REFUSAL_SECONDS - self._clock.monotonic()
        if wait_seconds > 0:
            raise AccessError(
                f"The server refused our credentials {MAX_REFUSALS} times; "
                f"no further try for {wait_seconds:.0f} s.",
                remedy="check the user and password of the connection",
            )
