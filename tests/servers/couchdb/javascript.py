"""Functions of design documents, run by QuickJS as CouchDB 3.5 can run them."""

from __future__ import annotations

import json
from typing import Any

from tests.servers.couchdb.errors import Refusal, forbidden, unauthorized

PRELUDE = """
    var __function, __rows;
    function log() {}
    function toJSON(value) { return JSON.stringify(value); }
    function isArray(value) { return Array.isArray(value); }
    function sum(values) { return values.reduce(function(a, b) { return a + b; }, 0); }
    function orNull(value) { return value === undefined ? null : value; }
    function emit(key, value) { __rows.push([orNull(key), orNull(value)]); }
    function __thrown(error) {
        if (error instanceof Error) return {error: error.name, reason: error.message};
        if (typeof error === 'object' && error !== null)
            for (var name in error) return {name: name, reason: error[name]};
        return {name: 'unknown_error', reason: error};
    }
    function __compile(source) {
        try { __function = (0, eval)('(' + source + ')'); return 'null'; }
        catch (error) { return JSON.stringify({error: 'compilation_error', reason: String(error)}); }
    }
    function __call(texts) {
        __rows = [];
        try {
            var result = __function.apply(null, JSON.parse(texts));
            return JSON.stringify({result: result === undefined ? null : result, rows: __rows});
        } catch (error) { return JSON.stringify({thrown: __thrown(error)}); }
    }
"""


class Thrown(Exception):
    """A function threw something.

    Attributes:
        name: the member's name, or the error's.
        reason: its text.
        crashed: whether it was an error and not a value.
    """

    def __init__(self, name: str, reason: Any, *, crashed: bool) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason if isinstance(reason, str) else json.dumps(reason)
        self.crashed = crashed


class Function:
    """A function in a context of its own.

    Args:
        source: its text.

    Raises:
        Refusal: it does not compile.
    """

    def __init__(self, source: str) -> None:
        # Here and not above: the demo has no functions, and runs without the packages of the tests.
        import quickjs  # type: ignore[import-untyped]

        context = quickjs.Context()
        context.eval(PRELUDE)
        failure = json.loads(context.get("__compile")(source))
        if failure:
            raise Refusal(500, failure["error"], failure["reason"])
        self._call = context.get("__call")
        self._context = context

    def __call__(self, *texts: bytes) -> tuple[Any, list[list[Any]]]:
        """Return the result and the rows that were emitted; the arguments are JSON texts.

        Raises:
            Thrown: the function threw something.
        """
        given = (b"[" + b",".join(texts) + b"]").decode()
        answer = json.loads(self._call(given))
        if "thrown" in answer:
            thrown = answer["thrown"]
            crashed = "error" in thrown
            raise Thrown(thrown["error" if crashed else "name"], thrown["reason"], crashed=crashed)
        return answer["result"], answer["rows"]


def validation_refusal(thrown: Thrown) -> Refusal:
    """Return the answer to a write that a validation function refuses."""
    if thrown.crashed:
        return Refusal(500, thrown.name, thrown.reason)
    if thrown.name == "forbidden":
        return forbidden(thrown.reason)
    if thrown.name == "unauthorized":
        return unauthorized(thrown.reason)
    return Refusal(500, "unknown_error", thrown.reason)
