"""The methods of a tracker, in this process (`Tracker`) or in another one (`SharedTracker`).

All use a few abstract methods, which the store carries out atomically: two processes that ask for the same
task never both get it as new.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from checkpoints.pod.codec import Key

Fields = Mapping[str, Any]


class ProgressStats(ABC):
    """The numbers of tasks that are done, tried or aborted, and of the others.

    Without any task, fractions are 0.0. Percentages are text: `34.70 %`.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of tasks."""

    @abstractmethod
    def num_done(self) -> int:
        """Return how many tasks are done."""

    @abstractmethod
    def num_tried(self) -> int:
        """Return how many tasks were tried at least once."""

    @abstractmethod
    def num_aborted(self) -> int:
        """Return how many tasks are given up."""

    def num_not_done(self) -> int:
        """Return how many tasks are not done."""
        return len(self) - self.num_done()

    def num_not_tried(self) -> int:
        """Return how many tasks were never tried."""
        return len(self) - self.num_tried()

    def num_not_aborted(self) -> int:
        """Return how many tasks are not given up."""
        return len(self) - self.num_aborted()

    def fraction_done(self) -> float:
        """Return the fraction of tasks that are done, 0 to 1."""
        return self._fraction(self.num_done())

    def fraction_tried(self) -> float:
        """Return the fraction of tasks that were tried, 0 to 1."""
        return self._fraction(self.num_tried())

    def fraction_aborted(self) -> float:
        """Return the fraction of tasks that are given up, 0 to 1."""
        return self._fraction(self.num_aborted())

    def fraction_not_done(self) -> float:
        """Return the fraction of tasks that are not done, 0 to 1."""
        return self._fraction(self.num_not_done())

    def fraction_not_tried(self) -> float:
        """Return the fraction of tasks that were never tried, 0 to 1."""
        return self._fraction(self.num_not_tried())

    def fraction_not_aborted(self) -> float:
        """Return the fraction of tasks that are not given up, 0 to 1."""
        return self._fraction(self.num_not_aborted())

    def percent(self, fraction: float, decimals: int = 2) -> str:
        """Return a fraction as text: 0.347 is `34.70 %`."""
        return f"{100 * fraction:.{decimals}f} %"

    def percent_done(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that are done, as text."""
        return self.percent(self.fraction_done(), decimals)

    def percent_tried(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that were tried, as text."""
        return self.percent(self.fraction_tried(), decimals)

    def percent_aborted(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that are given up, as text."""
        return self.percent(self.fraction_aborted(), decimals)

    def percent_not_done(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that are not done, as text."""
        return self.percent(self.fraction_not_done(), decimals)

    def percent_not_tried(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that were never tried, as text."""
        return self.percent(self.fraction_not_tried(), decimals)

    def percent_not_aborted(self, decimals: int = 2) -> str:
        """Return the percentage of tasks that are not given up, as text."""
        return self.percent(self.fraction_not_aborted(), decimals)

    def _fraction(self, count: int) -> float:
        return count / len(self) if len(self) else 0.0


class TrackerAPI(ProgressStats):
    """The tasks by key. Each has `_done`, `_tries`, `_aborted` and fields of its own.

    A task *should be done* if it is not done, has tries left, and is not aborted (unless `allow_aborted`).
    With `due` (wall-clock seconds), its field `next_retry_at` must also be absent or not later than `due`.
    """

    @abstractmethod
    def __getitem__(self, key: Key) -> Any:
        """Return a task's entry."""

    @abstractmethod
    def __contains__(self, key: object) -> bool:
        """Return whether a task exists."""

    @abstractmethod
    def add(self, key: Key, fields: Fields | None = None) -> None:
        """Add a task, with fields of its own.

        Raises:
            DuplicateKeyError: the task exists already.
            TypeError, ValueError: these fields cannot be stored; the task is not added.
        """

    @abstractmethod
    def add_many(self, keys: Iterable[Key]) -> None:
        """Add tasks, all or none.

        Raises:
            DuplicateKeyError: a task exists already, or is given twice; the message names it.
        """

    @abstractmethod
    def add_many_if_absent(self, keys: Iterable[Key]) -> None:
        """Add the tasks that do not exist."""

    @abstractmethod
    def amend(self, key: Key, fields: Fields) -> None:
        """Set fields of a task.

        Raises:
            KeyError: the task does not exist.
        """

    @abstractmethod
    def add_tries(self, key: Key, count: int) -> None:
        """Add to the tries of a task, or subtract; never below 0.

        Raises:
            KeyError: the task does not exist.
        """

    @abstractmethod
    def should_do(self, key: Key, allow_aborted: bool = False, *, due: float | None = None) -> bool:
        """Return whether a task should be done.

        Raises:
            KeyError: the task does not exist.
        """

    @abstractmethod
    def should_try(
        self, key: Key, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> bool:
        """Return whether a task should be done; if so, count a try.

        Args:
            key: the task.
            allow_aborted: also if it is aborted.
            due: see `TrackerAPI`.
            durable: write the try to disk before returning, so that it counts even if the task kills the
                process.

        Raises:
            KeyError: the task does not exist.
            StoreWriteError: the write failed.
        """

    @abstractmethod
    def todo_keys(self, allow_aborted: bool = False, *, due: float | None = None) -> Iterator[Key]:
        """Walk the tasks that should be done, in order, including tasks that are added during the walk."""

    @abstractmethod
    def aborted_keys(self) -> Iterator[Key]:
        """Walk the tasks that are given up, in order."""

    def add_if_absent(self, key: Key) -> None:
        """Add a task if it does not exist."""
        self.add_many_if_absent([key])

    def done(self, key: Key) -> bool:
        """Return whether a task is done; False if it does not exist."""
        return bool(self._marks(key)["_done"])

    def aborted(self, key: Key) -> bool:
        """Return whether a task is given up; False if it does not exist."""
        return bool(self._marks(key)["_aborted"])

    def _marks(self, key: Key) -> Any:
        try:
            return self[key]
        except KeyError:
            return {"_done": False, "_aborted": False}

    def tries(self, key: Key) -> int:
        """Return how many times a task was tried.

        Raises:
            KeyError: the task does not exist.
        """
        return int(self[key]["_tries"])

    def mark_done(self, key: Key) -> None:
        """Mark a task as done."""
        self.amend(key, {"_done": True})

    def mark_not_done(self, key: Key) -> None:
        """Mark a task as not done."""
        self.amend(key, {"_done": False})

    def abort(self, key: Key) -> None:
        """Give a task up."""
        self.amend(key, {"_aborted": True})

    def unabort(self, key: Key) -> None:
        """Undo `abort`."""
        self.amend(key, {"_aborted": False})

    def increment_tries(self, key: Key) -> None:
        """Add one try."""
        self.add_tries(key, 1)

    def decrement_tries(self, key: Key) -> None:
        """Subtract one try; 0 stays 0."""
        self.add_tries(key, -1)

    def reset_tries(self, key: Key) -> None:
        """Set the tries of a task to 0."""
        self.amend(key, {"_tries": 0})

    def should_do_add(self, key: Key, allow_aborted: bool = False) -> bool:
        """Call `should_do`; add the task first if it does not exist."""
        self.add_if_absent(key)
        return self.should_do(key, allow_aborted)

    def should_try_add(self, key: Key, allow_aborted: bool = False, *, durable: bool = True) -> bool:
        """Call `should_try`; add the task first if it does not exist."""
        self.add_if_absent(key)
        return self.should_try(key, allow_aborted, durable=durable)

    def todo_items(
        self, allow_aborted: bool = False, *, due: float | None = None
    ) -> Iterator[tuple[Key, Any]]:
        """Walk the tasks that should be done, with their entries."""
        return self._with_entries(self.todo_keys(allow_aborted, due=due))

    def todo_values(self, allow_aborted: bool = False, *, due: float | None = None) -> Iterator[Any]:
        """Walk the entries of the tasks that should be done."""
        return (entry for _, entry in self.todo_items(allow_aborted, due=due))

    def try_keys(
        self, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> Iterator[Key]:
        """Walk the tasks that should be done; count a try of each before it is yielded."""
        for key in self.todo_keys(allow_aborted, due=due):
            try:
                should = self.should_try(key, allow_aborted, due=due, durable=durable)
            except KeyError:  # removed meanwhile
                continue
            if should:
                yield key

    def try_items(
        self, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> Iterator[tuple[Key, Any]]:
        """Walk like `try_keys`, with the entries."""
        return self._with_entries(self.try_keys(allow_aborted, due=due, durable=durable))

    def try_values(
        self, allow_aborted: bool = False, *, due: float | None = None, durable: bool = True
    ) -> Iterator[Any]:
        """Walk like `try_keys`, but yield only the entries."""
        return (entry for _, entry in self.try_items(allow_aborted, due=due, durable=durable))

    def aborted_items(self) -> Iterator[tuple[Key, Any]]:
        """Walk the tasks that are given up, with their entries."""
        return self._with_entries(self.aborted_keys())

    def aborted_values(self) -> Iterator[Any]:
        """Walk the entries of the tasks that are given up."""
        return (entry for _, entry in self.aborted_items())

    def _with_entries(self, keys: Iterator[Key]) -> Iterator[tuple[Key, Any]]:
        for key in keys:
            try:
                entry = self[key]
            except KeyError:  # removed meanwhile
                continue
            yield key, entry
