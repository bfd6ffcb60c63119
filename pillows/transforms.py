"""Transforms: what rows does a document have in each output?

A transform gives a document's complete rows. With one output it returns a row (a mapping), a list of
rows, or None for no rows; with several it returns a mapping from output to any of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pillows.errors import PermanentError
from pillows.models import Document, Row


class Transform(ABC):
    """Makes a document's rows."""

    @abstractmethod
    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Output -> the document's complete rows there; a missing output has none.

        Raises:
            Exception: whatever is wrong with this document; it becomes a dead letter.
        """


class PassThrough(Transform):
    """Every document is one row of the first output, as the bytes that CouchDB sent.

    Args:
        outputs: the pillow's outputs; the first is filled.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self._output = outputs[0]

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """One row with the raw document."""
        return {self._output: (document.raw,)} if document.raw is not None else {}


class PythonTransform(Transform):
    """Asks a python function for the rows.

    Args:
        function: gets the parsed document, returns rows as the module says.
        outputs: the pillow's outputs, in configured order.
    """

    def __init__(self, function: Callable[[dict[str, Any]], Any], outputs: Sequence[str]) -> None:
        self._function = function
        self._outputs = tuple(outputs)

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """What the function makes of the document."""
        result = self._function(document.body)
        if len(self._outputs) == 1:
            return {self._outputs[0]: _rows(result)}
        return self._by_output(result)

    def _by_output(self, result: Any) -> Mapping[str, Sequence[Row]]:
        if result is None:
            return {}
        if not isinstance(result, Mapping):
            raise PermanentError(
                f"The transform returned {type(result).__name__}; with several outputs it must "
                "return a mapping from output to rows"
            )
        unknown = [name for name in result if name not in self._outputs]
        if unknown:
            raise PermanentError(
                f"The transform returned rows for {unknown[0]!r}; "
                f"this pillow's outputs are {', '.join(self._outputs)}"
            )
        return {name: _rows(rows) for name, rows in result.items()}


def _rows(result: Any) -> Sequence[Row]:
    """One output's rows from what a transform function may return for it."""
    if result is None:
        return ()
    if isinstance(result, Mapping):
        return (result,)
    if isinstance(result, list | tuple) and all(isinstance(row, Mapping) for row in result):
        return result
    raise PermanentError(f"The transform returned {type(result).__name__}; rows are mappings")
