"""The owner's side of shared stores: answers for a POD or Tracker on a control socket.

    with POD("urls.pod") as pod, ControlServer("urls.sock") as server:
        share(server, "urls", pod)              # elsewhere: SharedPOD.connect("urls.sock", "urls")

Values travel as the JSON text that the store keeps anyway. Each operation is one step of the owner; a
client that holds the lock keeps the other clients out until it lets it go, or its connection ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

from checkpoints.errors import StoreError
from checkpoints.pod.atomic_update import apply
from checkpoints.pod.codec import Key, as_key, encode_key
from checkpoints.pod.pod import POD
from checkpoints.rpc import framing
from checkpoints.rpc.server import Connection, ControlServer, TryAgain
from checkpoints.tracker.tracker import Tracker

T = TypeVar("T")

PAGE_BYTES = 256 * 1024  # about as much as one answer of a walk holds
DIRTY_BYTES = 768 * 1024  # at most as much as one answer about dirty keys holds: all are sorted for each
WAIT_SECONDS = 0.5  # how long a client waits for the lock before it is told to ask again


def export_store(server: ControlServer, name: str, pod: POD) -> None:
    """Answers for a store on `server` from now on, under `name`; the caller still owns and closes it."""
    service = TrackerService(pod) if isinstance(pod, Tracker) else PodService(pod)
    server.register_session(method_name(name), service.answer)


def method_name(name: str) -> str:
    """The name of the call that reaches a shared store."""
    return f"store {name}"


class SessionLock:
    """A lock that belongs to a connection, and that keeps everybody else's operations out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: Connection | None = None
        self._depth = 0
        self._active = 0
        self._waiting = 0

    @contextmanager
    def guard(self, session: Connection) -> Iterator[None]:
        """Lets an operation through.

        Raises:
            Busy: somebody else has the lock.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_open(session), WAIT_SECONDS):
                raise TryAgain
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def lock(self, session: Connection) -> None:
        """Takes the lock, once more if `session` has it; it is let go when the connection ends.

        Raises:
            Busy: somebody else has it.
        """
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: self._is_free(session), WAIT_SECONDS):
                    raise TryAgain
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            if self._owner is None:
                self._owner = session
                session.callback(self._let_go, session)
            self._depth += 1

    def unlock(self, session: Connection) -> None:
        """Lets the lock go, if it was taken no more often.

        Raises:
            StoreError: `session` does not have it.
        """
        with self._changed:
            if self._owner is not session:
                raise StoreError("the lock is not held")
            self._depth -= 1
            if not self._depth:
                self._let_go(session)

    def _is_open(self, session: Connection) -> bool:
        # Those who wait for the lock go before new operations, or a busy store would never be locked.
        return self._owner is session or (self._owner is None and not self._waiting)

    def _is_free(self, session: Connection) -> bool:
        return self._owner is session or (self._owner is None and not self._active)

    def _let_go(self, session: Connection) -> None:
        with self._changed:
            if self._owner is session:
                self._owner, self._depth = None, 0
                self._changed.notify_all()


class PodService:
    """What clients may ask of a POD: each `_do_` method is what SharedPOD's of that name asks for.

    Keys arrive as JSON, values as JSON text.
    """

    def __init__(self, pod: POD) -> None:
        self.pod = pod
        self.gate = SessionLock()

    def answer(self, session: Connection, method: str, arguments: Sequence[Any]) -> Any:
        """Answers one request."""
        if method == "lock":
            return self.gate.lock(session)
        if method == "unlock":
            return self.gate.unlock(session)
        handler: Callable[..., Any] | None = getattr(self, f"_do_{method}", None)
        if handler is None:
            raise StoreError(f"there is no method {method!r}")
        with self.gate.guard(session):
            return handler(*arguments)

    def _do_get(self, key: Any) -> str:
        return self.pod.text(as_key(key))

    def _do_put(self, entries: Sequence[tuple[Any, str]]) -> None:
        self.pod.update([(as_key(key), json.loads(text)) for key, text in entries])

    def _do_replace(self, key: Any, text: str) -> None:
        self.pod[as_key(key)] = json.loads(text)

    def _do_delete(self, key: Any) -> None:
        del self.pod[as_key(key)]

    def _do_pop(self, key: Any) -> str | None:
        """The text of a key that is removed; None where there is none."""
        with self.pod.together():
            return self._taken(as_key(key)) if as_key(key) in self.pod else None

    def _do_popitem(self) -> tuple[Key, str] | None:
        """The first key with its text; None where there is none."""
        with self.pod.together():
            for key in self.pod.iterkeys():
                return key, self._taken(key)
            return None

    def _taken(self, key: Key) -> str:
        text = self.pod.text(key)
        framing.encode({"result": (key, text)})  # what does not fit into the answer stays here
        del self.pod[key]
        return text

    def _do_setdefault(self, key: Any, text: str) -> str:
        with self.pod.together():
            if as_key(key) not in self.pod:
                self.pod[as_key(key)] = json.loads(text)
            return self.pod.text(as_key(key))

    def _do_contains(self, key: Any) -> bool:
        return as_key(key) in self.pod

    def _do_len(self) -> int:
        return len(self.pod)

    def _do_keys(self, ordinal: int) -> list[tuple[int, Key, None]]:
        """The next keys of a walk, each after its ordinal."""
        return self._page(ordinal, lambda _: None)

    def _do_items(self, ordinal: int) -> list[tuple[int, Key, str]]:
        """The next entries of a walk: ordinal, key, text."""
        return self._page(ordinal, self.pod.text)

    def _page(self, ordinal: int, about: Callable[[Key], T]) -> list[tuple[int, Key, T]]:
        """As many of the next keys as fit into one answer, with something about each; one at least."""
        page: list[tuple[int, Key, T]] = []
        size = 0
        with self.pod.together():
            for number, key in self.pod.after(ordinal):
                each = about(key)
                size += len(str(key)) + len(str(each))
                if page and size > PAGE_BYTES:
                    break
                page.append((number, key, each))
        return page

    def _do_apply(self, path: Sequence[Any], operation: str, arguments: str) -> Any:
        first, *way = path
        steps = [as_key(first), *(parse_step(step) for step in way)]
        with self.pod.together():
            return apply(self.pod, steps, operation, json.loads(arguments))

    def _do_sync(self) -> None:
        self.pod.sync()

    def _do_sync_key(self, keys: Sequence[Any]) -> None:
        self.pod.sync_key(*map(as_key, keys))

    def _do_mark_dirty(self, key: Any) -> None:
        self.pod.mark_dirty(as_key(key))

    def _do_dirty(self, last: str) -> list[str]:
        """The next dirty keys, as they stand in lines, and in that order: removed ones have no other."""
        texts = sorted(text for text in map(encode_key, self.pod.dirty()) if text > last)
        sizes = accumulate(2 * len(text) + 3 for text in texts)  # escaped once more, in quotes
        return [text for text, size in zip(texts, sizes, strict=True) if size <= DIRTY_BYTES] or texts[:1]

    def _do_hold(self) -> None:
        self.pod.hold()

    def _do_unhold(self) -> None:
        self.pod.unhold()

    def _do_revert(self) -> None:
        self.pod.revert()

    def _do_clear(self) -> None:
        self.pod.clear()


class TrackerService(PodService):
    """What clients may ask of a Tracker: what SharedTracker's methods ask for."""

    pod: Tracker

    def _do_add(self, key: Any, fields: str) -> None:
        self.pod.add(as_key(key), json.loads(fields))

    def _do_add_many(self, keys: Sequence[Any]) -> None:
        self.pod.add_many([as_key(key) for key in keys])

    def _do_add_many_if_absent(self, keys: Sequence[Any]) -> None:
        self.pod.add_many_if_absent([as_key(key) for key in keys])

    def _do_amend(self, key: Any, fields: str) -> None:
        self.pod.amend(as_key(key), json.loads(fields))

    def _do_add_tries(self, key: Any, count: int) -> None:
        self.pod.add_tries(as_key(key), count)

    def _do_should_do(self, key: Any, allow_aborted: bool, due: float | None) -> bool:
        return self.pod.should_do(as_key(key), allow_aborted, due=due)

    def _do_should_try(self, key: Any, allow_aborted: bool, due: float | None, durable: bool) -> bool:
        return self.pod.should_try(as_key(key), allow_aborted, due=due, durable=durable)

    def _do_todo(self, ordinal: int, allow_aborted: bool, due: float | None) -> list[tuple[int, Key, bool]]:
        """The next tasks of a walk: ordinal, key, whether it should be done."""
        return self._page(ordinal, lambda key: self.pod.should_do(key, allow_aborted, due=due))

    def _do_aborted(self, ordinal: int) -> list[tuple[int, Key, bool]]:
        """The next tasks of a walk: ordinal, key, whether it is given up."""
        return self._page(ordinal, self.pod.aborted)

    def _do_numbers(self) -> tuple[int, int, int, int]:
        """How many tasks are done, tried and aborted, and max_tries."""
        return self.pod.num_done(), self.pod.num_tried(), self.pod.num_aborted(), self.pod.max_tries


def parse_step(value: Any) -> Any:
    """A step into a value, as it came: a name, an index, or `{"slice": [start, stop, step]}`."""
    return slice(*value["slice"]) if isinstance(value, dict) else value
