"""The JSON Schema of a configuration, for completion and checks in editors.

It describes every key separately. Problems that concern several keys (an unknown connection, an output of two
pillows) are found by `pillowd check` only.
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

#: Name of the schema of an included file.
INCLUDED = "IncludedFile"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: `${...}` may replace any scalar; the name of a file may replace a mapping.
_INTERPOLATED = {"type": "string", "pattern": r"\$\{"}
_FILE = {"type": "string", "description": "a JSON or YAML file that holds the mapping"}
_SCALARS = ("integer", "number", "boolean")


def make_schema() -> _Schema:
    """Return the schema, with the connections and outputs of every known type.

    Raises:
        ConfigError: a plugin's transport cannot be imported.
    """
    transports = {name: registry.transport(name) for name in registry.transport_types()}
    connections = {type_name: each.Connection for type_name, each in transports.items()}
    outputs = [each.Output for each in transports.values()]
    names, definitions = _make_definitions([Config, *connections.values(), *outputs])
    for model, name in names.items():
        _describe_inherited(model, definitions[name])
    for type_name, model in connections.items():
        definitions[f"connection.{type_name}"] = _make_connection(type_name, definitions[names[model]])
    for output in outputs:
        definitions[f"entry.{names[output]}"] = _make_entry(names[output], definitions[names[output]])
    definitions["ConnectionConfig"] = _any(f"connection.{type_name}" for type_name in connections)
    definitions["TransportConfig"] = _any(f"entry.{names[output]}" for output in dict.fromkeys(outputs))
    _add_rules(definitions)
    definitions[INCLUDED] = _make_included(definitions["Config"])
    schema: _Schema = _allow_interpolation({"$defs": definitions})
    # A file that begins with `version` is a whole configuration; any other one is included by one.
    root = {
        "if": {"required": ["version"]},
        "then": {"$ref": "#/$defs/Config"},
        "else": {"$ref": f"#/$defs/{INCLUDED}"},
    }
    return {"$schema": _DIALECT, "title": "pillowd configuration", **root, **schema}


def _make_definitions(models: list[type[Options]]) -> tuple[dict[type[Options], str], _Schema]:
    """Return the name of each model's schema, and all schemas by name."""
    unique = list(dict.fromkeys(models))
    found, schema = models_json_schema([(model, "validation") for model in unique], by_alias=True)
    names = {model: found[model, "validation"]["$ref"].rpartition("/")[2] for model in unique}
    return names, schema["$defs"]


def _describe_inherited(model: type[Options], definition: _Schema) -> None:
    """Add the descriptions of the keys that a model inherits, from the docstrings of its bases."""
    for base in reversed(model.__mro__[1:]):
        for key, text in parse_attributes(base.__doc__ or "").items():
            if key in definition.get("properties", {}):
                definition["properties"][key]["description"] = text


def _make_included(whole: _Schema) -> _Schema:
    """Return the schema of an included file."""
    sections = {name: whole["properties"][name] for name in ("connections", "pillows")}
    text = "A file that another one includes; a whole configuration begins with `version: 1`."
    return {"type": "object", "description": text, "properties": sections, "additionalProperties": False}


def _make_connection(type_name: str, model: _Schema) -> _Schema:
    others = {key: value for key, value in model.get("properties", {}).items() if key != "type"}
    required = ["type", *(key for key in model.get("required", ()) if key != "type")]
    return {**model, "properties": {"type": {"const": type_name}, **others}, "required": required}


def _make_entry(name: str, output: _Schema) -> _Schema:
    """Return the schema of an entry of `transport`: the settings of its one output, or `outputs`."""
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


def _add_rules(definitions: _Schema) -> None:
    """Add the rules of `load` that the models lack, and the description of each key from the docstrings."""
    root = definitions["Config"]["properties"]
    root["version"] = {"const": 1}
    for section in ("connections", "pillows"):
        root[section]["propertyNames"] = {"pattern": NAME}
    definitions["PillowConfig"]["properties"]["transport"]["minItems"] = 1
    for definition in definitions.values():
        texts = parse_attributes(definition.get("description", ""))
        definition["description"] = definition.get("description", "").partition("\n\nAttributes:")[0]
        for key, value in definition.get("properties", {}).items():
            if key in texts:
                value["description"] = texts[key]


def parse_attributes(docstring: str) -> dict[str, str]:
    """Return the descriptions in a docstring's `Attributes:` by attribute."""
    _, _, listed = inspect.cleandoc(docstring).partition("Attributes:\n")
    found = re.findall(r"^    (\w[\w, ]*): (.*(?:\n      .*)*)", listed, flags=re.MULTILINE)
    return {
        name.strip().removesuffix("_"): " ".join(text.split())
        for names, text in found
        for name in names.split(",")
    }


def _allow_interpolation(schema: Any) -> Any:
    """Return the schema with `${...}` allowed for scalars, and file names for free mappings."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    for key in ("properties", "$defs"):
        if key in schema:
            schema[key] = {name: _allow_interpolation(each) for name, each in schema[key].items()}
    for key in ("anyOf", "oneOf"):
        if key in schema:
            schema[key] = [_allow_interpolation(each) for each in schema[key]]
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = _allow_interpolation(schema[key])
    if schema.get("type") in _SCALARS or "enum" in schema or "pattern" in schema:
        return {"anyOf": [schema, _INTERPOLATED]}
    if schema.get("type") == "object" and not {"properties", "propertyNames"} & schema.keys():
        return {"anyOf": [schema, _FILE]}
    return schema
