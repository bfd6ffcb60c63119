"""SharedPOD: one process owns the store; any number of processes use it.

    shared = SharedPOD("squares.pod")           # owns it; answers on squares.pod/.socket
    Process(target=work, args=(shared,)).start()

    def work(shared):                           # pickled, it is only the address
        shared["total"] = 0
        shared.set["total"] += 1                # atomic: no lock needed
        with shared.locked():                   # for several operations together
            shared["total"] = shared["total"] * 2

`shared[key]` returns a copy, so changing it does not change the store; `shared.set[key]` does. If a client is
killed, nothing is lost and its lock is released.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from checkpoints.pod.atomic_update import PathProxy, apply_update
from checkpoints.pod.codec import Key, as_key, check_key, decode_key, encode_value, is_key
from checkpoints.pod.pod import NOTHING, POD, list_pairs
from checkpoints.rpc.client import RpcClient
from checkpoints.rpc.server import RpcServer
from checkpoints.shared.service import export_store, method_name

SOCKET = ".socket"
NAME = "store"


class SharedPOD(MutableMapping[Any, Any]):
    """A POD that any number of processes use.

    The process that creates it owns the store and must close it. Copies that are pickled or forked into
    other processes, and the results of `connect`, hold only the address.

    Args:
        path: the POD's directory; its socket is `.socket` in it.
        settings: as for POD.

    Raises:
        StoreLocked: another process owns the store: use `connect`.
        OSError: the socket cannot be created.
    """

    _kind: ClassVar[type[POD]] = POD

    def __init__(self, path: str | Path, *args: Any, **settings: Any) -> None:
        with ExitStack() as stack:
            pod = stack.enter_context(self._kind(path, *args, **settings))
            address = pod.path / SOCKET
            server = stack.enter_context(RpcServer(address))
            export_store(server, NAME, pod)
            self._reach(address, NAME)
            self._owned: tuple[RpcServer, POD] | None = (server, pod)
            stack.pop_all()

    def _reach(self, address: str | Path, name: str) -> None:
        self._client = RpcClient(address)
        self._name = name
        self._depth = 0
        self._owned = None
        self._pid = os.getpid()

    @classmethod
    def connect(cls, address: str | Path, name: str = NAME) -> Self:
        """Connect to a store that another process owns.

        Args:
            address: its socket, or the directory of a store that this class opened.
            name: the store's name, if the owner shares several stores on one socket.
        """
        path = Path(address).expanduser().resolve()
        shared = cls.__new__(cls)
        shared._reach(path / SOCKET if path.is_dir() else path, name)  # noqa: SLF001 - an own method
        return shared

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self).connect, (str(self._client.path), self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}.connect({str(self._client.path)!r}, {self._name!r})"

    def __getitem__(self, key: Key) -> Any:
        return json.loads(self._missing(key, "get", key))

    def __setitem__(self, key: Key, value: Any) -> None:
        check_key(key)
        self._call("replace", key, encode_value(key, value))

    def __delitem__(self, key: Key) -> None:
        self._missing(key, "delete", key)

    def __contains__(self, key: object) -> bool:
        there = self._call("contains", key if is_key(key) else "")  # asked in any case: it may be closed
        return bool(there) and is_key(key)

    def __len__(self) -> int:
        return int(self._call("len"))

    def __iter__(self) -> Iterator[Key]:
        return self.iterkeys()

    def iterkeys(self) -> Iterator[Key]:
        """Walk the keys in order, fetched in pages.

        Keys that are added during the walk are included. So are removed keys whose page was fetched before.
        """
        return (key for key, _ in self._walk("keys"))

    def iteritems(self) -> Iterator[tuple[Key, Any]]:
        """Walk the keys in order, with their values, fetched in pages."""
        return ((key, json.loads(text)) for key, text in self._walk("items"))

    def itervalues(self) -> Iterator[Any]:
        """Walk the values in the order of the keys, fetched in pages."""
        return (value for _, value in self.iteritems())

    items: Any = POD.items
    values: Any = POD.values

    def update(self, *others: Any, **fields: Any) -> None:
        """Store entries, all or none; at most 1 MiB in one call."""
        entries = [*(pair for other in others for pair in list_pairs(other)), *fields.items()]
        for key, _ in entries:
            check_key(key)
        self._call("put", [(key, encode_value(key, value)) for key, value in entries])

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return a copy of a key's value; if the key is missing, store `default` first. Atomic."""
        check_key(key)
        return json.loads(self._call("setdefault", key, encode_value(key, default)))

    def pop(self, key: Key, default: Any = NOTHING) -> Any:
        """Remove a key and return its value, atomically.

        Raises:
            KeyError: the key is missing, and no default was given.
            MessageTooLarge: the value is over 1 MiB; it was not removed.
        """
        check_key(key)
        text = self._call("pop", key)
        if text is not None:
            return json.loads(text)
        if default is NOTHING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Key, Any]:
        """Remove the first key and return it with its value, atomically.

        Raises:
            KeyError: it is empty.
        """
        item = self._call("popitem")
        if item is None:
            raise KeyError("it is empty")
        key, text = item
        return as_key(key), json.loads(text)

    def clear(self) -> None:
        """Remove everything."""
        self._call("clear")

    @property
    def set(self) -> PathProxy:
        """Return a proxy whose deep changes are atomic, made by the owner: `shared.set["a"]["n"] += 1`."""
        return PathProxy(self._apply)

    def dirty(self) -> set[Key]:  # type: ignore[valid-type]  # `set` is the property here
        """Return the keys whose last change or removal is not on disk yet, fetched in pages."""
        found, last = [], ""
        while page := self._call("dirty", last):
            found += page
            last = page[-1]
        return {decode_key(text) for text in found}

    def mark_dirty(self, key: Key) -> None:
        """Write a key at the next sync."""
        self._missing(key, "mark_dirty", key)

    def sync(self) -> None:
        """Wait until everything that was stored before, by any process, is on disk."""
        self._call("sync")

    def sync_key(self, *keys: Key) -> None:
        """Wait until the files of these keys are on disk."""
        self._missing(keys, "sync_key", keys)

    def hold(self) -> None:
        """Stop automatic syncs, for all processes."""
        self._call("hold")

    def unhold(self) -> None:
        """Start automatic syncs again."""
        self._call("unhold")

    def revert(self) -> None:
        """Drop all changes that are not on disk, also those of other processes."""
        self._call("revert")

    def lock(self) -> None:
        """Keep all others out until `unlock`, or until this process ends; may be nested."""
        self._client.turn.acquire()
        try:
            self._call("lock")
        except BaseException:
            self._client.turn.release()
            raise
        self._depth += 1
        self._client.pinned = True

    def unlock(self) -> None:
        """Release the lock.

        Raises:
            StoreError: this object has not locked it.
            StoreUnavailable: the store's owner process has ended meanwhile, and the lock with it.
        """
        with self._client.turn:
            try:
                self._call("unlock")
            finally:
                if self._depth:
                    self._depth -= 1
                    self._client.pinned = self._depth > 0
                    self._client.turn.release()

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Keep all others out until the block ends."""
        self.lock()
        try:
            yield self
        finally:
            self.unlock()

    def close(self) -> None:
        """Close the connection; the owner also syncs and closes the store. Safe to call twice.

        Raises:
            StoreWriteError: the owner's write failed. Nothing is lost: close it again.
        """
        self._client.close()
        if self._owned is None or self._pid != os.getpid():
            return
        server, pod = self._owned
        try:
            server.close()
        finally:
            pod.close()
        self._owned = None  # only now: after a failed write it must be closed again

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._client.call(method_name(self._name), method=method, arguments=arguments)

    def _missing(self, key: Any, method: str, *arguments: Any) -> Any:
        """Call a method with one or several keys; a KeyError holds the caller's own key."""
        check_key(key)
        try:
            return self._call(method, *arguments)
        except KeyError:
            raise KeyError(key) from None

    def _walk(self, method: str, *options: Any) -> Iterator[tuple[Key, Any]]:
        ordinal = -1
        while page := self._call(method, ordinal, *options):
            for ordinal, key, about in page:  # noqa: B007 - where the next page begins
                yield as_key(key), about

    def _apply(self, path: Sequence[Any], operation: str, arguments: Sequence[Any]) -> Any:
        if not path:  # the store's own methods are atomic, and keep the types of keys
            return apply_update(self, path, operation, arguments)
        check_key(path[0])
        steps = [_step(step) for step in path]
        # Two less: a value is nested in `arguments`, within a call's arguments. The owner checks exactly.
        return self._call("apply", steps, operation, encode_value(path[0], arguments, within=-2))


def _step(step: Any) -> Any:
    return {"slice": [step.start, step.stop, step.step]} if isinstance(step, slice) else step
