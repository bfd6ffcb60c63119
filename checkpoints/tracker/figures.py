"""Counts, fractions and percents of a tracker, from three numbers that it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Figures(ABC):
    """How many tasks are done, tried, aborted, and how many are not.

    A fraction of no tasks at all is 0.0. Percents are text: `34.70 %`.
    """

    @abstractmethod
    def __len__(self) -> int:
        """How many tasks there are."""

    @abstractmethod
    def num_done(self) -> int:
        """How many tasks are done."""

    @abstractmethod
    def num_tried(self) -> int:
        """How many tasks were tried at least once."""

    @abstractmethod
    def num_aborted(self) -> int:
        """How many tasks are given up."""

    def num_not_done(self) -> int:
        """How many tasks are not done."""
        return len(self) - self.num_done()

    def num_not_tried(self) -> int:
        """How many tasks were never tried."""
        return len(self) - self.num_tried()

    def num_not_aborted(self) -> int:
        """How many tasks are not given up."""
        return len(self) - self.num_aborted()

    def fraction_done(self) -> float:
        """Which part of the tasks is done, 0 to 1."""
        return self._fraction(self.num_done())

    def fraction_tried(self) -> float:
        """Which part of the tasks was tried, 0 to 1."""
        return self._fraction(self.num_tried())

    def fraction_aborted(self) -> float:
        """Which part of the tasks is given up, 0 to 1."""
        return self._fraction(self.num_aborted())

    def fraction_not_done(self) -> float:
        """Which part of the tasks is not done, 0 to 1."""
        return self._fraction(self.num_not_done())

    def fraction_not_tried(self) -> float:
        """Which part of the tasks was never tried, 0 to 1."""
        return self._fraction(self.num_not_tried())

    def fraction_not_aborted(self) -> float:
        """Which part of the tasks is not given up, 0 to 1."""
        return self._fraction(self.num_not_aborted())

    def percent_done(self, decimals: int = 2) -> str:
        """Which part of the tasks is done, as text."""
        return _percent(self.fraction_done(), decimals)

    def percent_tried(self, decimals: int = 2) -> str:
        """Which part of the tasks was tried, as text."""
        return _percent(self.fraction_tried(), decimals)

    def percent_aborted(self, decimals: int = 2) -> str:
        """Which part of the tasks is given up, as text."""
        return _percent(self.fraction_aborted(), decimals)

    def percent_not_done(self, decimals: int = 2) -> str:
        """Which part of the tasks is not done, as text."""
        return _percent(self.fraction_not_done(), decimals)

    def percent_not_tried(self, decimals: int = 2) -> str:
        """Which part of the tasks was never tried, as text."""
        return _percent(self.fraction_not_tried(), decimals)

    def percent_not_aborted(self, decimals: int = 2) -> str:
        """Which part of the tasks is not given up, as text."""
        return _percent(self.fraction_not_aborted(), decimals)

    def _fraction(self, count: int) -> float:
        return count / len(self) if len(self) else 0.0


def _percent(fraction: float, decimals: int) -> str:
    return f"{100 * fraction:.{decimals}f} %"
