"""The JSON Schema of a configuration, for editors that complete and check while one types.

It says what every key may be. What takes the whole configuration to know (that a connection exists,
that an output belongs to one pillow) is left to `pillowd check`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from daemon.config.models import NAME, Config, TransportConfig
from pillows import registry
from pillows.options import Options

_Schema = dict[str, Any]

#: The name of the schema of a file that is included.
INCLUDED = "IncludedFile"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Stands in for any scalar, which it becomes when it is filled in; or for a mapping in a file.
_INTERPOLATED = {"type": "string", "pattern": r"\$\{"}
_FILE = {"type": "string", "description": "a JSON or YAML file that holds the mapping"}
_SCALARS = ("integer", "number", "boolean")


def json_schema() -> _Schema:
    """The schema, with the connections and outputs of every known type.

    Raises:
        ConfigError: a plugin's transport cannot be imported.
    """
    transports = {name: registry.transport(name) for name in registry.transport_types()}
    connections = {its_type: each.Connection for its_type, each in transports.items()}
    outputs = [each.Output for each in transports.values()]
    names, definitions = _definitions([Config, *connections.values(), *outputs])
    for its_type, model in connections.items():
        definitions[f"connection.{its_type}"] = _connection(its_type, definitions[names[model]])
    for output in outputs:
        definitions[f"entry.{names[output]}"] = _entry(names[output], definitions[names[output]])
    definitions["ConnectionConfig"] = _any(f"connection.{its_type}" for its_type in connections)
    definitions["TransportConfig"] = _any(f"entry.{names[output]}" for output in dict.fromkeys(outputs))
    _complete(definitions)
    definitions[INCLUDED] = _included(definitions["Config"])
    schema: _Schema = _fillable({"$defs": definitions})
    # A file that begins with `version` is a whole configuration; any other one is included by one.
    root = {
        "if": {"required": ["version"]},
        "then": {"$ref": "#/$defs/Config"},
        "else": {"$ref": f"#/$defs/{INCLUDED}"},
    }
    return {"$schema": _DIALECT, "title": "pillowd configuration", **root, **schema}


def _definitions(models: list[type[Options]]) -> tuple[dict[type[Options], str], _Schema]:
    """The name of each model's schema, and all schemas by name."""
    unique = list(dict.fromkeys(models))
    found, schema = models_json_schema([(model, "validation") for model in unique], by_alias=True)
    names = {model: found[model, "validation"]["$ref"].rpartition("/")[2] for model in unique}
    return names, schema["$defs"]


def _included(whole: _Schema) -> _Schema:
    """A file that a configuration includes."""
    sections = {name: whole["properties"][name] for name in ("connections", "pillows")}
    text = "A file that another one includes; a whole configuration begins with `version: 1`."
    return {"type": "object", "description": text, "properties": sections, "additionalProperties": False}


def _connection(its_type: str, model: _Schema) -> _Schema:
    others = {key: value for key, value in model.get("properties", {}).items() if key != "type"}
    required = ["type", *(key for key in model.get("required", ()) if key != "type")]
    return {**model, "properties": {"type": {"const": its_type}, **others}, "required": required}


def _entry(name: str, output: _Schema) -> _Schema:
    """An entry of `transport`: it holds the settings of its one output itself, or has `outputs`."""
    own: _Schema = {"connection": {"type": "string"}, "name": {"type": "string", "pattern": NAME}}
    common = TransportConfig.model_json_schema()["properties"]
    own |= {"timeout": common["timeout"], "own_pace": common["own_pace"]}
    outputs = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{name}"}, "minProperties": 1}
    short = {"properties": own | output.get("properties", {}), "required": ["connection"]}
    short["required"] += output.get("required", ())
    long = {"properties": own | {"outputs": outputs}, "required": ["connection", "outputs"]}
    return {"anyOf": [{"type": "object", "additionalProperties": False, **each} for each in (short, long)]}


def _any(names: Iterable[str]) -> _Schema:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def _complete(definitions: _Schema) -> None:
    """What `load` demands beside the models, and what their docstrings say of each key."""
    root = definitions["Config"]["properties"]
    root["version"] = {"const": 1}
    for section in ("connections", "pillows"):
        root[section]["propertyNames"] = {"pattern": NAME}
    definitions["PillowConfig"]["properties"]["transport"]["minItems"] = 1
    for definition in definitions.values():
        texts = described(definition.get("description", ""))
        definition["description"] = definition.get("description", "").partition("\n\nAttributes:")[0]
        for key, value in definition.get("properties", {}).items():
            if key in texts:
                value["description"] = texts[key]


def described(docstring: str) -> dict[str, str]:
    """Attribute -> what a docstring's `Attributes:` says of it."""
    _, _, listed = inspect.cleandoc(docstring).partition("Attributes:\n")
    found = re.findall(r"^    (\w[\w, ]*): (.*(?:\n      .*)*)", listed, flags=re.MULTILINE)
    return {
        name.strip().removesuffix("_"): " ".join(text.split())
        for names, text in found
        for name in names.split(",")
    }


def _fillable(schema: Any) -> Any:
    """The same schema, with `${...}` for numbers and the like, and with files for free mappings."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    for key in ("properties", "$defs"):
        if key in schema:
            schema[key] = {name: _fillable(each) for name, each in schema[key].items()}
    for key in ("anyOf", "oneOf"):
        if key in schema:
            schema[key] = [_fillable(each) for each in schema[key]]
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = _fillable(schema[key])
    if schema.get("type") in _SCALARS or "enum" in schema or "pattern" in schema:
        return {"anyOf": [schema, _INTERPOLATED]}
    if schema.get("type") == "object" and not {"properties", "propertyNames"} & schema.keys():
        return {"anyOf": [schema, _FILE]}
    return schema
