"""Transforms: what rows does a document have in each output?

A transform gives a document's complete rows. With one output it returns a row (a mapping), a list of
rows, or None for no rows; with several it returns a mapping from output to any of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pillows.errors import FatalError, PermanentError
from pillows.models import Document, Row
from pillows.stages.declarative import DeclarativeStep
from pillows.user_code import confine


class Transform(ABC):
    """Makes a document's rows."""

    @abstractmethod
    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Return output -> the document's complete rows there; a missing output has none.

        Raises:
            Exception: any error; the document becomes a dead letter.
        """


class PassThrough(Transform):
    """Every document is one row of the first output, as the bytes that CouchDB sent.

    Args:
        outputs: the pillow's outputs; the first is filled.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self._output = outputs[0]

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Return one row with the raw document."""
        return {self._output: (document.raw,)} if document.raw is not None else {}


def copy_doc(document: Document) -> dict[str, Any]:
    """Return a copy of the parsed document, which may be changed."""
    if document.raw is None:
        return dict(document.doc)
    body: dict[str, Any] = msgspec.json.decode(document.raw)
    return body


class PythonTransform(Transform):
    """Asks a python function for the rows.

    Args:
        function: gets the parsed document, its own to change, and returns rows as the module says.
        outputs: the pillow's outputs, in configured order.
    """

    def __init__(self, function: Callable[[dict[str, Any]], Any], outputs: Sequence[str]) -> None:
        self._function = function
        self._outputs = tuple(outputs)

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Return what the function makes of the document."""
        return routed(self._function(copy_doc(document)), self._outputs)


class Chain(Transform):
    """Several steps after one another: each gets the row that the one before has made.

    A declarative step may add rows of other outputs, which no later step sees. A python function gives
    the row for the next step, or None for no rows at all; the last one gives the rows of the outputs
    that no step has filled, as the module says.

    Args:
        steps: declarative steps, and functions from a document to a document.
        outputs: the pillow's outputs; the first gets the row that comes out at the end, unless a step
            fills it from an array.
    """

    def __init__(
        self, steps: Sequence[DeclarativeStep | Callable[[dict[str, Any]], Any]], outputs: Sequence[str]
    ) -> None:
        self._steps = tuple(steps)
        self._outputs = tuple(outputs)
        self._calls_python = any(not isinstance(step, DeclarativeStep) for step in steps)
        filled = {output for step in steps if isinstance(step, DeclarativeStep) for output in step.outputs}
        self._left = tuple(output for output in outputs if output not in filled)

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Return the result of the last step."""
        # A function may change its argument, so it does not get the body that a filter has parsed.
        value: Any = copy_doc(document) if self._calls_python else document.doc
        children: dict[str, Sequence[Row]] = {}
        for step in self._steps:
            if isinstance(step, DeclarativeStep):
                children.update(step.children(value))
                value = step.apply(value)
            else:
                value = step(value)
            if value is None:
                return {}
            if step is not self._steps[-1] and not isinstance(value, dict):
                raise PermanentError(
                    f"A step of the transform returned {type(value).__name__}; before others, it must "
                    "return a document"
                )
        return self._with_children(value, children)

    def _with_children(self, value: Any, children: dict[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        if isinstance(self._steps[-1], DeclarativeStep):
            return {self._outputs[0]: (value,), **children} if self._outputs[0] in self._left else children
        return {**children, **routed(value, self._left)} if self._left else children


class ChunkedTransform(Transform):
    """Asks a python function about many documents at once.

    It is called when a batch is written, with the documents that have arrived: up to `chunk` under load, or a
    single one if the feed has no more. So documents never wait for others.

    Args:
        function: gets a list of documents, returns as many results, each as the module says.
        outputs: the pillow's outputs, in configured order.
        chunk: documents in one call at most.
    """

    def __init__(
        self,
        function: Callable[[list[dict[str, Any]]], Any],
        outputs: Sequence[str],
        *,
        chunk: int,
    ) -> None:
        self._function = function
        self._outputs = tuple(outputs)
        self.chunk = chunk

    def __call__(self, document: Document) -> Mapping[str, Sequence[Row]]:
        """Return what the function makes of a single document."""
        (result,) = self.many([document])
        if isinstance(result, Exception):
            raise result
        return result

    def many(self, documents: Sequence[Document]) -> list[Mapping[str, Sequence[Row]] | Exception]:
        """Return the rows of each document, in order, or what the function raised for it.

        A failed call is repeated for each document alone, so that only the bad document fails.
        """
        results: list[Mapping[str, Sequence[Row]] | Exception] = []
        for at in range(0, len(documents), self.chunk):
            results += self._chunk(documents[at : at + self.chunk])
        return results

    def _chunk(self, documents: Sequence[Document]) -> list[Mapping[str, Sequence[Row]] | Exception]:
        try:
            return self._asked(documents)
        except FatalError:
            raise
        except BaseException as raised:  # noqa: BLE001 - a user's code may raise anything; it becomes a dead letter
            error = confine(raised)
            if len(documents) == 1:
                return [error]
            return [result for document in documents for result in self._chunk([document])]

    def _asked(self, documents: Sequence[Document]) -> list[Mapping[str, Sequence[Row]] | Exception]:
        answers = list(self._function([copy_doc(document) for document in documents]))
        if len(answers) != len(documents):
            raise PermanentError(
                f"The transform returned {len(answers)} results for {len(documents)} documents"
            )
        return [routed(answer, self._outputs) for answer in answers]


def routed(result: Any, outputs: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    """Convert the result of a transform function to output -> rows.

    Raises:
        PermanentError: the result has another type.
    """
    if len(outputs) == 1:
        return {outputs[0]: _rows(result)}
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        raise PermanentError(
            f"The transform returned {type(result).__name__}; with several outputs it must "
            "return a mapping from output to rows"
        )
    unknown = [name for name in result if name not in outputs]
    if unknown:
        raise PermanentError(
            f"The transform returned rows for {unknown[0]!r}; this pillow's outputs are {', '.join(outputs)}"
        )
    return {name: _rows(rows) for name, rows in result.items()}


def _rows(result: Any) -> Sequence[Row]:
    """Convert the result of a transform function for one output to its rows."""
    if result is None:
        return ()
    if isinstance(result, Mapping):
        return (result,)
    if isinstance(result, list | tuple) and all(isinstance(row, Mapping) for row in result):
        return result
    raise PermanentError(f"The transform returned {type(result).__name__}; rows are mappings")
