"""One writer in front of several: what is done to it is done to all of them, and they must agree.

    with ParallelWriter([open("a.bin", "wb"), open("b.bin", "wb")]) as both:
        both.write(b"once, to both")

Every attribute is the files' own: methods are called on all at once, and all are waited for, whatever
the others do. Works with any file-like objects, reading and iterating included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import gevent
from gevent.lock import RLock
from gevent.pool import Pool

from pillows.errors import PillowError

#: Methods whose results differ between files that are equal.
DIFFERING = frozenset({"fileno", "seekable", "isatty", "readable", "writable"})

_END = object()


class DivergenceError(PillowError):
    """The files answered differently.

    Attributes:
        results: what each answered, in their order.
    """

    def __init__(self, message: str, results: Sequence[object]) -> None:
        super().__init__(message)
        self.results = list(results)


class ParallelError(PillowError):
    """Some of the files failed.

    Attributes:
        errors: index of the file -> its error.
        results: index of the file -> what it answered, of those that did not fail.
    """

    def __init__(self, message: str, errors: Mapping[int, Exception], results: Mapping[int, object]) -> None:
        super().__init__(message)
        self.errors = dict(errors)
        self.results = dict(results)


class ParallelWriter:
    """Proxies several file-like objects.

    Args:
        files: the objects; they are closed with this one.
        max_parallel: so many are written at once; all of them unless given.
        ignore_diff: methods that may answer differently.
        timeout_seconds: a call on one file that takes longer is abandoned and counts as failed; what
            it did is not known.
    """

    def __init__(
        self,
        files: Sequence[Any],
        *,
        max_parallel: int | None = None,
        ignore_diff: Collection[str] = DIFFERING,
        timeout_seconds: float | None = None,
    ) -> None:
        if not files:
            raise ValueError("a ParallelWriter needs at least one file")
        if max_parallel is not None and max_parallel < 1:
            raise ValueError("max_parallel is at least 1")
        self._files = tuple(files)
        self._max_parallel = max_parallel or len(files)
        self._ignore_diff = frozenset(ignore_diff)
        self._timeout_seconds = timeout_seconds
        # Callers take turns, so that every file sees the calls in the same order.
        self._turn = RLock()

    def __getattr__(self, name: str) -> Any:
        """An attribute of all files: a method calls theirs, any other value must be the same.

        Raises:
            AttributeError: the first has none of that name.
            DivergenceError: the values differ.
        """
        if name.startswith("_"):  # also while a copy of this object is only being made
            raise AttributeError(name)
        values = [getattr(file, name) for file in self._files]
        if callable(values[0]):
            return partial(self._call, name)
        return self._agreed(name, values)

    def __iter__(self) -> Iterator[Any]:
        """The lines of the files.

        Raises:
            DivergenceError: they differ, or one has ended before the others.
        """
        iterators = [iter(file) for file in self._files]
        while True:
            lines = self._all("next", [partial(next, iterator, _END) for iterator in iterators])
            if all(line is _END for line in lines):
                return
            yield self._agreed("next", lines)

    def close(self) -> None:
        """Closes all files, whatever some of them say.

        Raises:
            ParallelError: some could not be closed; all others are.
        """
        self._all("close", [file.close for file in self._files])

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes all files; an error that is under way goes before theirs."""
        try:
            self.close()
        except PillowError as failed:
            if error is None:
                raise
            error.add_note(str(failed))

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        calls = [partial(getattr(file, name), *args, **kwargs) for file in self._files]
        return self._agreed(name, self._all(name, calls))

    def _all(self, name: str, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """What each call returned, once all have ended."""
        with self._turn:
            pool = Pool(self._max_parallel)
            greenlets = []
            try:
                for call in calls:
                    greenlets.append(pool.spawn(self._caught, call))  # noqa: PERF401 - killed if this is
                gevent.joinall(greenlets)  # gives them in the order of their ends
            except BaseException:
                pool.kill()  # who waited was stopped: no call begins after that
                raise
        outcomes = [greenlet.get() for greenlet in greenlets]
        errors = {i: error for i, (_, error) in enumerate(outcomes) if error is not None}
        if errors:
            answered = {i: result for i, (result, error) in enumerate(outcomes) if error is None}
            told = "; ".join(f"file {i}: {type(e).__name__}: {e}" for i, e in errors.items())
            raise ParallelError(f"{name} failed: {told}", errors, answered) from next(iter(errors.values()))
        return [result for result, _ in outcomes]

    def _caught(self, call: Callable[[], Any]) -> tuple[Any, Exception | None]:
        error = TimeoutError(f"no answer within {self._timeout_seconds} s; what was done is not known")
        try:
            with gevent.Timeout(self._timeout_seconds, error):
                return call(), None
        except Exception as error:  # noqa: BLE001 - raised by `_all`, once all have ended
            return None, error

    def _agreed(self, name: str, results: Sequence[Any]) -> Any:
        first, *others = results
        if name not in self._ignore_diff and any(other != first for other in others):
            shown = ", ".join(_shown(result) for result in results)
            raise DivergenceError(f"{name} answered differently: {shown}", results)
        return first


def _shown(result: object) -> str:
    text = "the end" if result is _END else repr(result)
    return text if len(text) <= 60 else f"{text[:57]}..."
