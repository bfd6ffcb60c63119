"""The JSON Schema covers every key that a configuration may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from daemon.config.models import Config, DaemonOptions, PillowConfig
from daemon.config.schema import make_schema, parse_attributes
from pillows import registry
from pillows.options import Options

MODELS: dict[str, type[Options]] = {
    "Config": Config,
    "DaemonOptions": DaemonOptions,
    "PillowConfig": PillowConfig,
    **{f"connection.{name}": registry.transport(name).Connection for name in registry.transport_types()},
    **{
        f"entry.{registry.transport(name).Output.__name__}": registry.transport(name).Output
        for name in registry.transport_types()
    },
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return make_schema()


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


@pytest.mark.parametrize("name", MODELS)
def test_has_every_key_of(schema, name):
    found = schema["$defs"][name]
    keys = {key for each in walk(found) for key in each.get("properties", {})}
    assert {field.alias or key for key, field in MODELS[name].model_fields.items()} <= keys
    assert all(each["additionalProperties"] is False for each in walk(found) if "properties" in each)


def test_every_reference_leads_somewhere(schema):
    refs = {each["$ref"] for each in walk(schema) if isinstance(each.get("$ref"), str)}
    assert {ref.removeprefix("#/$defs/") for ref in refs} <= set(schema["$defs"])


def test_a_connections_type_chooses_its_keys(schema):
    entry = schema["$defs"]["connection.sqlite"]
    assert entry["properties"]["type"] == {"const": "sqlite"}
    assert entry["required"] == ["type", "path"]


def test_durations_and_numbers_may_be_interpolated(schema):
    wait, _ = schema["$defs"]["DaemonOptions"]["properties"]["shutdown_timeout"]["anyOf"]
    assert wait["type"] == "string"
    number, filled = schema["$defs"]["BatchOptions"]["properties"]["max_docs"]["anyOf"]
    assert (number["type"], filled) == ("integer", {"type": "string", "pattern": r"\$\{"})


def test_key_is_described_by_its_docstring():
    text = """A thing.

    Attributes:
        one: the first, over
            two lines: so.
        two, three: the others.
    """
    assert parse_attributes(text) == {
        "one": "the first, over two lines: so.",
        "two": "the others.",
        "three": "the others.",
    }
