"""Carry out one operation: check the arguments, note the act in the audit log, call the handler.

Both the HTTP server and the command without a daemon use this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fastjsonschema

from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.errors import InvalidRequestError
from daemon.http.contract import Operation, load_contract
from daemon.http.handlers import handler_of
from daemon.http.messages import Answer
from pillows.suggest import suggest


def carry_out(api: ControlApi, operation: Operation, arguments: Mapping[str, Any], by: Actor) -> Answer:
    """Carry out an operation, and write an act to the audit log before and after.

    Args:
        api: what the handlers work on.
        operation: the operation.
        arguments: its parameters and body, by argument name.
        by: who asked for it.

    Raises:
        InvalidRequestError: the arguments do not match the operation's schema.
        PillowError, StoreError: the handler refused the request.
    """
    more = {"by": by} if operation.takes_actor else {}
    if operation.is_safe:
        return _call(api, operation, arguments, more)
    act = api.audit.begin(
        operation.id, by=by, pillow=name_target(arguments), details=_details(operation, arguments)
    )
    try:
        answer = _call(api, operation, arguments, {**more, "act": act} if operation.takes_act else more)
    except BaseException as error:
        act.end_with(error)
        raise
    if not operation.takes_act:
        if isinstance(answer.body, dict):
            act.before, act.after = answer.body.get("before"), answer.body.get("seq")
        act.end("done")
    return answer


def name_target(arguments: Mapping[str, Any]) -> str | None:
    """Return the pillow that a request names, as its key is written."""
    key, source = arguments.get("key"), arguments.get("source")
    return f"{key}@{source}" if key and source else key


def check_arguments(operation: Operation, arguments: Mapping[str, Any]) -> None:
    """Check arguments against the operation's schema.

    Raises:
        InvalidRequestError: the arguments do not match the schema.
    """
    unknown = sorted(set(arguments) - set(operation.schema["properties"]))
    if unknown:
        remedy = suggest(unknown[0], sorted(operation.parameters), "parameters")
        raise InvalidRequestError(f"`{unknown[0]}` is not a parameter of {operation.id}", remedy=remedy)
    try:
        _compile(operation.id)(dict(arguments))
    except fastjsonschema.JsonSchemaValueException as error:
        raise InvalidRequestError(_explain(error), remedy="see /v1/openapi.json") from error


def _call(
    api: ControlApi, operation: Operation, arguments: Mapping[str, Any], more: Mapping[str, Any]
) -> Answer:
    check_arguments(operation, arguments)
    answer = handler_of(operation)(api, **arguments, **more)
    return answer if isinstance(answer, Answer) else Answer(body=answer)


@cache
def _compile(operation_id: str) -> Callable[[Any], Any]:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema",
        **load_contract().operations[operation_id].schema,
    }
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema, use_default=False)
    return compiled


def _explain(error: fastjsonschema.JsonSchemaValueException) -> str:
    """Return the error without the values, which may be document ids or secrets."""
    path = re.sub(r"^data\.?", "", error.name or "") or "the request"
    said = re.sub(r"^data\S*", "", error.message).strip()
    if error.rule == "pattern" and "examples" in error.definition:
        said = f"must look like {error.definition['examples'][0]}"
    elif error.rule == "oneOf":
        said = f"must match one of {json.dumps(error.rule_definition)}"
    return f"`{path}` {said}"


def _details(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for the audit log: only those that the operation declares."""
    known = operation.schema["properties"]
    return {name: each for name, each in arguments.items() if name in known and name not in ("key", "source")}
