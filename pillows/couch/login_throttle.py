"""How seldom one set of credentials is tried when a server says no.

CouchDB 3.4 locks an account after five failures for some minutes, even for the right password, and
checking a wrong password costs the server most of a second. So credentials that were refused are
tried twice in five minutes at most, by everybody who shares them.
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

#: Refusals that end the trying, and for how long.
MAX_REFUSALS = 2
REFUSAL_SECONDS = 300.0

#: A password is checked before anything else: who has no answer by then is not being refused.
PATIENCE_SECONDS = 5.0


class LoginThrottle:
    """Counts refusals of one set of credentials, and lets few try while they are unproven.

    Until the server has taken them once, and again after a refusal or a broken connection, one
    request at a time may carry them: twenty pillows that start with a wrong password, or that come
    back to a server where it was changed, would lock the account otherwise. Requests that are on
    their way while it is changed can't be called back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused_at: deque[float] = deque(maxlen=MAX_REFUSALS)
        self._proven = False
        self._gate = Semaphore(1)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Around one request with credentials; waits while another tries unproven ones.

        Raises:
            AccessError: they were refused too often just now; nothing may be sent.
        """
        with ExitStack() as waited:
            if not self._proven:
                waited.enter_context(self._turn())
                self._check()
            if self._proven:  # by whoever was let in before
                waited.close()
            yield

    @contextmanager
    def logging_in(self) -> Iterator[None]:
        """Around the request that gets a token or a session, which may be refused as well.

        Raises:
            AccessError: as `trying`; somebody else may have been refused since.
        """
        self._check()
        try:
            yield
        except RefusedError:
            self.refused()
            raise

    def refused(self) -> None:
        """The server did not take the credentials."""
        self._proven = False
        self._refused_at.append(self._clock.monotonic())

    def accepted(self) -> None:
        """The server took the credentials."""
        self._proven = True
        self._refused_at.clear()

    def doubt(self) -> None:
        """A connection broke: what the server took before it may not take any more."""
        self._proven = False

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One after the other; whoever hears nothing for long lets the next one begin."""
        self._gate.acquire()
        patience = gevent.spawn_later(PATIENCE_SECONDS, self._gate.release)
        try:
            yield
        finally:
            if not patience.ready():
                patience.kill(block=False)
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
