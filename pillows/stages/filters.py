"""Filters: does this document belong to the pillow's set?

A deletion is never asked about: it has left every set. A document that a filter drops loses its
rows in the target, so that one which has left the set does not stay as a phantom.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from pillows.errors import ConfigError, PermanentError
from pillows.models import Change
from pillows.stages.document_paths import describe_mismatch

#: By its name, as one of all values, within the whole, or by its name in other dead letters (`\u0064oc`).
_REACHES_DOCUMENT = re.compile(r"doc|[*@]|\\u")


class Filter(ABC):
    """Decides about one change.

    Attributes:
        needs_document: whether it reads the document; if not, it runs before the fetch.
    """

    needs_document: bool = True

    @abstractmethod
    def __call__(self, change: Change) -> bool:
        """Return whether the document belongs to the set."""

    def explain(self, change: Change) -> str:
        """Return the decision on a change and its reason, in a few words."""
        return f"{type(self).__name__} says {'yes' if self(change) else 'no'}"


class KeepAll(Filter):
    """Keeps every document."""

    needs_document = False

    def __call__(self, change: Change) -> bool:  # noqa: ARG002 - it keeps whatever comes
        """Return True."""
        return True

    def explain(self, change: Change) -> str:  # noqa: ARG002 - it keeps whatever comes
        """Describe the absence of a filter."""
        return "there is no filter"


class PythonFilter(Filter):
    """Asks a python function.

    Args:
        function: gets the parsed document, or the `Change` if `needs_document` is False.
        needs_document: whether the function reads the document.
    """

    def __init__(self, function: Callable[[Any], object], *, needs_document: bool = True) -> None:
        self._function = function
        self.needs_document = needs_document

    def __call__(self, change: Change) -> bool:
        """Return what the function decides."""
        return bool(self._function(change.doc if self.needs_document else change))

    def explain(self, change: Change) -> str:
        """Show what the function returned."""
        returned = self._function(change.doc if self.needs_document else change)
        name = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return f"{name} returned {_short(returned)}"


class JmespathFilter(Filter):
    """Evaluates a JMESPath expression over `{id, rev, revs, deleted, doc}`.

    False-like is what JMESPath says: null, false, and the empty string, list and object.

    Args:
        expression: such as `doc.doc_type == 'Case'`.

    Raises:
        ConfigError: the text is not a valid JMESPath expression.
    """

    def __init__(self, expression: str) -> None:
        try:
            self._expression = jmespath.compile(expression)
        except JMESPathError as error:
            raise ConfigError(f"Filter {expression!r} is not a valid JMESPath expression: {error}") from error
        self.needs_document = _REACHES_DOCUMENT.search(expression) is not None

    def __call__(self, change: Change) -> bool:
        """Return whether the expression's value is true."""
        value = self._value(change)
        return not (value is None or value is False or value in ("", [], {}))

    def explain(self, change: Change) -> str:
        """Show the expression and its value."""
        return f"{self._expression.expression} is {_short(self._value(change))}"

    def _value(self, change: Change) -> Any:
        facts = {"id": change.id, "rev": change.rev, "revs": list(change.revs), "deleted": change.deleted}
        if self.needs_document:
            facts["doc"] = change.doc
        try:
            return self._expression.search(facts)
        except JMESPathError as error:
            raise PermanentError(describe_mismatch(self._expression.expression, error)) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
