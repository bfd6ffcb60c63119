"""Writes to several file-like objects at once: each call is made on all of them, and they must agree.

    with ParallelWriter([open("a.bin", "wb"), open("b.bin", "wb")]) as both:
        both.write(b"once, to both")

Every attribute is the files' own: methods are called on all at once, and all are waited for, even if some
fail. Works with any file-like objects, also for reading and iterating. The calls are made in greenlets if
`gevent.monkey` has patched everything, else in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from types import TracebackType
from typing import Any, Self

from pillows.delivery.backends import is_patched
from pillows.errors import PillowError
from pillows.standalone.parallel_calls import GreenletCalls, ThreadCalls

#: Methods whose results differ between files that are equal.
DIFFERING = frozenset({"fileno", "seekable", "isatty", "readable", "writable"})

_END = object()


class DivergenceError(PillowError):
    """The files answered differently.

    Attributes:
        results: of each file, in their order.
    """

    def __init__(self, message: str, results: Sequence[object]) -> None:
        super().__init__(message)
        self.results = list(results)


class ParallelError(PillowError):
    """Some of the files failed.

    Attributes:
        errors: index of the file -> its error.
        results: index of the file -> its result, of those that did not fail.
    """

    def __init__(self, message: str, errors: Mapping[int, Exception], results: Mapping[int, object]) -> None:
        super().__init__(message)
        self.errors = dict(errors)
        self.results = dict(results)


class ParallelWriter:
    """Proxies several file-like objects. Each call is made on all of them at once, by one caller at a time.

    Only lines of files that can seek are read in turn while iterating, unless there is a timeout.

    Args:
        files: the objects; they are closed with this one.
        max_parallel: files that are written at once; all unless given.
        ignore_diff: methods whose results may differ.
        timeout_seconds: a call on one file that takes longer is abandoned and counts as failed; what
            it did is not known. A thread can't be ended: there it goes on, and until it has ended every
            further call on that file fails.
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
        self._ignore_diff = frozenset(ignore_diff)
        calls = GreenletCalls if is_patched() else ThreadCalls
        self._call_all = calls(max_parallel or len(files), timeout_seconds)
        self._has_timeout = timeout_seconds is not None

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of all files: a method calls theirs, any other value must be the same.

        Raises:
            AttributeError: the first file has none of that name.
            DivergenceError: the values differ.
        """
        if name.startswith("_"):  # also while a copy of this object is only being made
            raise AttributeError(name)
        values = [getattr(file, name) for file in self._files]
        if callable(values[0]):
            return partial(self._call, name)
        return self._agree_on(name, values)

    def __iter__(self) -> Iterator[Any]:
        """Yield the lines of the files.

        Raises:
            DivergenceError: they differ, or one has ended before the others.
        """
        iterators = [iter(file) for file in self._files]
        # Lines of files on a disk or in memory come at once: handing each to a thread takes far longer.
        if not self._has_timeout and all(_is_seekable(file) for file in self._files):
            lines: Iterable[Sequence[Any]] = zip_longest(*iterators, fillvalue=_END)
        else:
            lines = iter(partial(self._next_lines, iterators), [_END] * len(iterators))
        for each in lines:
            yield self._agree_on("next", each)

    def __next__(self) -> Any:
        """Return the next line of the files.

        Raises:
            StopIteration: all have ended.
            DivergenceError: as of iterating.
        """
        line = self._agree_on("next", self._next_lines(self._files))
        if line is _END:
            raise StopIteration
        return line

    def close(self) -> None:
        """Close all files, even if some fail.

        Raises:
            ParallelError: some could not be closed; all others are.
        """
        try:
            self._all("close", [file.close for file in self._files])
        finally:
            self._call_all.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all files; an error of the block goes before theirs."""
        try:
            self.close()
        except PillowError as failed:
            if error is None:
                raise
            error.add_note(str(failed))

    def _next_lines(self, iterators: Sequence[Any]) -> list[Any]:
        return self._all("next", [partial(next, each, _END) for each in iterators])

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        calls = [partial(getattr(file, name), *args, **kwargs) for file in self._files]
        return self._agree_on(name, self._all(name, calls))

    def _all(self, name: str, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Return the result of each call, once all have ended."""
        outcomes = self._call_all(calls)
        errors = {}
        for i, (_, error) in enumerate(outcomes):
            if isinstance(error, KeyboardInterrupt):
                raise error
            if error is not None:
                errors[i] = error
        if errors:
            answers = {i: result for i, (result, error) in enumerate(outcomes) if error is None}
            details = "; ".join(f"file {i}: {type(e).__name__}: {e}" for i, e in errors.items())
            raise ParallelError(f"{name} failed: {details}", errors, answers) from next(iter(errors.values()))
        return [result for result, _ in outcomes]

    def _agree_on(self, name: str, results: Sequence[Any]) -> Any:
        first = results[0]
        if name not in self._ignore_diff and results.count(first) != len(results):
            shown = ", ".join(_abbreviate(result) for result in results)
            raise DivergenceError(f"{name} answered differently: {shown}", results)
        return first


def _is_seekable(file: Any) -> bool:
    return bool(getattr(file, "seekable", bool)())


def _abbreviate(result: object) -> str:
    text = "the end" if result is _END else repr(result)
    return text if len(text) <= 60 else f"{text[:57]}..."
