"""The API as `openapi.yaml` describes it: operations, their parameters and schemas."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

#: The read-only listener, or one that serves the whole API.
ListenerKind = Literal["read", "admin"]

_FILE = Path(__file__).with_name("openapi.yaml")
_METHODS = ("get", "put", "post", "patch", "delete")
_REF = "#/"

#: Answers of the server itself: of all operations, of those that are not public, and of those that change
#: something.
_EVERY = {"400": "The request is not valid, or its `Host` header is not one of this server."}
_ADMIN = {
    "401": "TCP: the token is missing or wrong.",
    "403": "The client may not do this.",
    "429": "TCP: too many wrong tokens came from this address.",
}
_UNSAFE = {
    "413": "The body is larger than 64 KiB.",
    "415": "The body is not JSON.",
    "503": "The act could not be written to the audit log, or the daemon is stopping.",
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        id: its `operationId`, and the name of its handler.
        tag: its tag, and the module of its handler.
        method: in upper case.
        path: with `{name}` for each parameter.
        listener: `read` if the read-only listener serves it too, otherwise `admin`.
        scope: the scope that a token needs.
        argument_scopes: name of an argument -> another scope that a token needs if the argument is true.
        is_stream: whether its answer may take minutes.
        takes_actor: whether its handler takes the argument `by`, the client.
        takes_act: whether its handler takes the argument `act`, and ends it when the work is done.
        parameters: name of an argument -> schema of the parameter.
        places: name of an argument -> `path`, `query` or `header`, and the parameter's name there.
        required: the required parameters.
        body: schema of the body; None if there is none.
        body_required: whether a body is required.
    """

    id: str
    tag: str
    method: str
    path: str
    listener: ListenerKind
    scope: str
    is_stream: bool
    takes_actor: bool = False
    takes_act: bool = False
    argument_scopes: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    body: Any = None
    body_required: bool = False

    @property
    def is_safe(self) -> bool:
        """Whether the operation changes nothing."""
        return self.method == "GET"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of all arguments together."""
        properties = dict(self.parameters)
        required = list(self.required)
        if self.body is not None:
            properties["body"] = self.body
            required += ["body"] if self.body_required else []
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The whole API.

    Attributes:
        text: the OpenAPI document as JSON, with the answers of the server itself. As a dict it would take ten
            times as much memory.
        operations: id -> operation.
    """

    text: bytes
    operations: Mapping[str, Operation]

    @property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document; decoded for each call."""
        found: dict[str, Any] = msgspec.json.decode(self.text)
        return found


@cache
def load_contract() -> Contract:
    """Return the API of this version; the file is read once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return parse_contract(yaml.load(_FILE.read_bytes(), Loader=loader))  # noqa: S506  both are safe


def parse_contract(document: dict[str, Any]) -> Contract:
    """Return the API that an OpenAPI document describes.

    Raises:
        ValueError: two operations have the same id, or one lacks its id, tag or `x-listener`.
    """
    document = copy.deepcopy(document)
    operations: dict[str, Operation] = {}
    for path, method, raw in _iter_operations(document):
        operation = _parse_operation(document, path, method, raw)
        if operation.id in operations:
            raise ValueError(f"two operations are called {operation.id}")
        operations[operation.id] = operation
        raw["responses"] = _complete(operation, raw["responses"])
    return Contract(text=msgspec.json.encode(document), operations=operations)


def _iter_operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method.upper(), item[method]


def _parse_operation(
    document: Mapping[str, Any], path: str, method: str, raw: Mapping[str, Any]
) -> Operation:
    missing = [name for name in ("operationId", "tags", "x-listener", "responses") if name not in raw]
    if missing or raw["x-listener"] not in ("read", "admin") or len(raw["tags"]) != 1:
        raise ValueError(
            f"{method} {path} needs operationId, one tag, x-listener read or admin, and responses"
        )
    shared = document["paths"][path].get("parameters", [])
    parameters = [resolve(document, each) for each in [*shared, *raw.get("parameters", [])]]
    named = {to_argument(each["name"]): each for each in parameters}
    places = {argument: (each["in"], each["name"]) for argument, each in named.items()}
    schemas = {argument: each["schema"] for argument, each in named.items()}
    for header in raw.get("x-headers", ()):
        places[to_argument(header)] = ("header", header)
        schemas[to_argument(header)] = {"type": "string"}
    body = resolve(document, raw.get("requestBody"))
    return Operation(
        id=raw["operationId"],
        tag=raw["tags"][0],
        method=method,
        path=path,
        listener=raw["x-listener"],
        scope=raw.get("x-scope") or ("read" if method == "GET" else "write"),
        argument_scopes={name: each["x-scope"] for name, each in named.items() if "x-scope" in each},
        is_stream=raw.get("x-stream", False),
        takes_actor=raw.get("x-actor", False),
        takes_act=raw.get("x-act", False),
        parameters=schemas,
        places=places,
        required=tuple(argument for argument, each in named.items() if each.get("required")),
        body=body and body["content"]["application/json"]["schema"],
        body_required=bool(body and body.get("required")),
    )


def to_argument(name: str) -> str:
    """Return the name of the argument for a parameter: `If-Match` is `if_match`."""
    return name.lower().replace("-", "_")


def resolve(document: Mapping[str, Any], value: Any) -> Any:
    """Return a value of an OpenAPI document with its `$ref`s resolved."""
    if isinstance(value, dict):
        if "$ref" in value:
            found: Any = document
            for part in value["$ref"].removeprefix(_REF).split("/"):
                found = found[part]
            return resolve(document, found)
        return {name: resolve(document, child) for name, child in value.items()}
    if isinstance(value, list):
        return [resolve(document, child) for child in value]
    return value


def _complete(operation: Operation, responses: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers of an operation, with those of the server itself."""
    own = dict(_EVERY)
    if operation.listener == "admin":
        own |= _ADMIN
    if not operation.is_safe:
        own |= _UNSAFE
    given = {status: _problem(text) for status, text in own.items()}
    return dict(sorted({**given, **responses}.items()))


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}
