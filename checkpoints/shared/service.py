"""The owner's side of shared stores: answer calls for a POD or Tracker over remote calls.

    with POD("urls.pod") as pod, RpcServer("urls.sock") as server:
        share(server, "urls", pod)              # elsewhere: SharedPOD.connect("urls.sock", "urls")

Values are sent as the JSON text that the store keeps anyway. Each operation is atomic. A client that holds
the lock keeps the other clients out until it releases the lock or its connection ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

from checkpoints.errors import StoreError
from checkpoints.pod.atomic_update import apply_update
from checkpoints.pod.codec import Key, as_key, encode_key
from checkpoints.pod.pod import POD
from checkpoints.rpc import framing
from checkpoints.rpc.server import Connection, RpcServer, TryAgain
from checkpoints.tracker.tracker import Tracker

T = TypeVar("T")

PAGE_BYTES = 256 * 1024  # about as much as one answer of a walk holds
DIRTY_BYTES = 768 * 1024  # at most as much as one answer about dirty keys holds: all are sorted for each
WAIT_SECONDS = 0.5  # a client waits this long for the lock before it must call again


def export_store(server: RpcServer, name: str, pod: POD) -> None:
    """Answer for a store on `server` under `name`; the caller still owns and closes the store."""
    methods = _POD_METHODS | _TRACKER_METHODS if isinstance(pod, Tracker) else _POD_METHODS
    server.register_session(method_name(name), StoreService(pod, methods).answer)


def method_name(name: str) -> str:
    """Return the name of the call that reaches a shared store."""
    return f"store {name}"


class SessionLock:
    """A lock that belongs to a connection and keeps the operations of all others out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: Connection | None = None
        self._depth = 0
        self._active = 0
        self._waiting = 0

    @contextmanager
    def guard(self, connection: Connection) -> Iterator[None]:
        """Let an operation through.

        Raises:
            TryAgain: another client has the lock.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_open(connection), WAIT_SECONDS):
                raise TryAgain
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def lock(self, connection: Connection) -> None:
        """Take the lock for a connection, which may hold it already. It is released when the connection ends.

        Raises:
            TryAgain: another client has the lock.
        """
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: self._is_free(connection), WAIT_SECONDS):
                    raise TryAgain
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            if self._owner is None:
                self._owner = connection
                connection.callback(self._release, connection)
            self._depth += 1

    def unlock(self, connection: Connection) -> None:
        """Release the lock as often as it was taken.

        Raises:
            StoreError: `connection` does not have it.
        """
        with self._changed:
            if self._owner is not connection:
                raise StoreError("the lock is not held")
            self._depth -= 1
            if not self._depth:
                self._release(connection)

    def _is_open(self, connection: Connection) -> bool:
        # Clients that wait for the lock go before new operations, or a busy store would never be locked.
        return self._owner is connection or (self._owner is None and not self._waiting)

    def _is_free(self, connection: Connection) -> bool:
        return self._owner is connection or (self._owner is None and not self._active)

    def _release(self, connection: Connection) -> None:
        with self._changed:
            if self._owner is connection:
                self._owner, self._depth = None, 0
                self._changed.notify_all()


class StoreService:
    """Answers the calls of one store's clients.

    Args:
        pod: the store.
        methods: name -> a function of the store and the arguments, and a decoder for each argument.
            Keys arrive as JSON, values as JSON text.
    """

    def __init__(self, pod: POD, methods: Mapping[str, Sequence[Callable[..., Any]]]) -> None:
        self._pod = pod
        self._methods = methods
        self._lock = SessionLock()

    def answer(self, connection: Connection, method: str, arguments: Sequence[Any]) -> Any:
        """Answer one request."""
        if method == "lock":
            return self._lock.lock(connection)
        if method == "unlock":
            return self._lock.unlock(connection)
        if method not in self._methods:
            raise StoreError(f"there is no method {method!r}")
        call, *decoders = self._methods[method]
        decoded = [decode(argument) for decode, argument in zip(decoders, arguments, strict=True)]
        with self._lock.guard(connection):
            return call(self._pod, *decoded)


def _pop(pod: POD, key: Key) -> str | None:
    """Remove a key and return its value as JSON text; None if it is missing."""
    with pod.together():
        return _remove(pod, key) if key in pod else None


def _popitem(pod: POD) -> tuple[Key, str] | None:
    """Remove the first key and return it with its value as JSON text; None if the store is empty."""
    with pod.together():
        for key in pod.iterkeys():
            return key, _remove(pod, key)
        return None


def _remove(pod: POD, key: Key) -> str:
    text = pod.text(key)
    framing.encode({"result": (key, text)})  # an entry that does not fit into the answer stays here
    del pod[key]
    return text


def _setdefault(pod: POD, key: Key, value: Any) -> str:
    with pod.together():
        if key not in pod:
            pod[key] = value
        return pod.text(key)


def _apply(pod: POD, path: Sequence[Any], operation: str, arguments: Any) -> Any:
    with pod.together():
        return apply_update(pod, path, operation, arguments)


def _page(pod: POD, ordinal: int, about: Callable[[Key], T]) -> list[tuple[int, Key, T]]:
    """Return (ordinal, key, `about(key)`) of the next keys: at least one, and as many as fit in an answer."""
    page: list[tuple[int, Key, T]] = []
    size = 0
    with pod.together():
        for number, key in pod.after(ordinal):
            each = about(key)
            size += len(str(key)) + len(str(each))
            if page and size > PAGE_BYTES:
                break
            page.append((number, key, each))
    return page


def _todo(tracker: Tracker, ordinal: int, allow_aborted: bool, due: float | None) -> list[Any]:
    return _page(tracker, ordinal, lambda key: tracker.should_do(key, allow_aborted, due=due))


def _list_dirty(pod: POD, last: str) -> list[str]:
    """Return the next dirty keys as their text in lines, sorted by it: removed keys have no ordinal."""
    texts = sorted(text for text in map(encode_key, pod.dirty()) if text > last)
    sizes = accumulate(2 * len(text) + 3 for text in texts)  # escaped once more, in quotes
    return [text for text, size in zip(texts, sizes, strict=True) if size <= DIRTY_BYTES] or texts[:1]


def _count(tracker: Tracker) -> tuple[int, int, int, int]:
    return tracker.num_done(), tracker.num_tried(), tracker.num_aborted(), tracker.max_tries


def _should_try(tracker: Tracker, key: Key, allow_aborted: bool, due: float | None, durable: bool) -> bool:
    return tracker.should_try(key, allow_aborted, due=due, durable=durable)


def _parse_keys(keys: Sequence[Any]) -> list[Key]:
    return [as_key(key) for key in keys]


def _parse_entries(entries: Sequence[tuple[Any, str]]) -> list[tuple[Key, Any]]:
    return [(as_key(key), json.loads(text)) for key, text in entries]


def _parse_path(path: Sequence[Any]) -> list[Any]:
    """Return the key and steps of a path; a step is a name, an index, or `{"slice": [start, stop, step]}`."""
    first, *steps = path
    return [as_key(first), *(slice(*each["slice"]) if isinstance(each, dict) else each for each in steps)]


def _as_it_is(argument: Any) -> Any:
    return argument


_POD_METHODS: dict[str, tuple[Callable[..., Any], ...]] = {
    "get": (POD.text, as_key),
    "put": (POD.update, _parse_entries),
    "replace": (POD.__setitem__, as_key, json.loads),
    "delete": (POD.__delitem__, as_key),
    "pop": (_pop, as_key),
    "popitem": (_popitem,),
    "setdefault": (_setdefault, as_key, json.loads),
    "contains": (POD.__contains__, as_key),
    "len": (POD.__len__,),
    "keys": (lambda pod, ordinal: _page(pod, ordinal, lambda _: None), _as_it_is),
    "items": (lambda pod, ordinal: _page(pod, ordinal, pod.text), _as_it_is),
    "apply": (_apply, _parse_path, _as_it_is, json.loads),
    "sync": (POD.sync,),
    "sync_key": (lambda pod, keys: pod.sync_key(*keys), _parse_keys),
    "mark_dirty": (POD.mark_dirty, as_key),
    "dirty": (_list_dirty, _as_it_is),
    "hold": (POD.hold,),
    "unhold": (POD.unhold,),
    "revert": (POD.revert,),
    "clear": (POD.clear,),
}

_TRACKER_METHODS: dict[str, tuple[Callable[..., Any], ...]] = {
    "add": (Tracker.add, as_key, json.loads),
    "add_many": (Tracker.add_many, _parse_keys),
    "add_many_if_absent": (Tracker.add_many_if_absent, _parse_keys),
    "amend": (Tracker.amend, as_key, json.loads),
    "add_tries": (Tracker.add_tries, as_key, _as_it_is),
    "should_do": (
        lambda tracker, key, aborted, due: tracker.should_do(key, aborted, due=due),
        as_key,
        _as_it_is,
        _as_it_is,
    ),
    "should_try": (_should_try, as_key, _as_it_is, _as_it_is, _as_it_is),
    "todo": (_todo, _as_it_is, _as_it_is, _as_it_is),
    "aborted": (lambda tracker, ordinal: _page(tracker, ordinal, tracker.aborted), _as_it_is),
    "numbers": (_count,),
}
