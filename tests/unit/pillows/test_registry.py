"""How names in the configuration find their classes."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from pillows import registry
from pillows.errors import ConfigError
from pillows.transports.base import Transport
from pillows.transports.null import NullTransport


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets after each test what it has registered."""
    monkeypatch.setattr(registry, "_registered", {})


def plug(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints(points).select(**wanted)

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_a_type_is_the_name_of_its_file() -> None:
    assert registry.transport("null") is NullTransport


def test_types_are_listed_without_helpers_and_without_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})  # what other tests have registered
    types = registry.transport_types()
    assert {"jsonl", "null", "sqlite", "stdout"} <= set(types)
    assert "base" not in types
    assert not [type for type in types if "_" in type]


@pytest.mark.parametrize("type", registry.transport_types())
def test_every_listed_type_is_there_and_declares_its_options(type: str) -> None:
    found = registry.transport(type)
    assert found.Connection.model_config["extra"] == "forbid"
    assert found.Output.model_config["extra"] == "forbid"


def test_listing_and_importing_the_registry_loads_no_transport() -> None:
    code = (
        "import sys, pillows.registry as r; r.transport_types();"
        "print([m for m in sys.modules if m.startswith('pillows.transports.') and '.common' not in m])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['pillows.transports.base']"


@pytest.mark.parametrize(
    ("type", "remedy"),
    [("sqlight", "did you mean `sqlite`?"), ("kinesis", "types: "), ("base", "types: ")],
)
def test_an_unknown_type_names_the_known_ones(type: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="There is no transport of type") as caught:
        registry.transport(type)
    assert remedy in caught.value.remedy
    assert "jsonl, " in caught.value.remedy


def test_a_users_module_registers_its_own(fresh: None) -> None:
    @registry.register("transport", "mine")
    class Mine(NullTransport):
        pass

    assert registry.transport("mine") is Mine
    assert "mine" in registry.transport_types()


def test_two_things_of_one_name_are_refused(fresh: None) -> None:
    registry.register("filter", "even")(len)
    registry.register("filter", "even")(len)
    with pytest.raises(ConfigError, match="Two things are registered as filter 'even'"):
        registry.register("filter", "even")(max)


def test_an_entry_point_gives_a_transport(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "pillows.transports.null:NullTransport"
    plug(monkeypatch, EntryPoint("plugged", value, "pillowd.transports"))
    assert registry.transport("plugged") is NullTransport
    assert registry.names("transport") == ["plugged"]
    assert registry.registered("filter", "plugged") is None


@pytest.mark.parametrize("value", ["missing.module:Thing", "pillows.models:Missing"])
def test_a_broken_entry_point_is_named(fresh: None, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    plug(monkeypatch, EntryPoint("broken", value, "pillowd.transports"))
    with pytest.raises(ConfigError, match=f"'broken' is declared as {value}"):
        registry.transport("broken")


def test_something_that_is_no_transport_is_refused(fresh: None) -> None:
    registered: Any = registry.register("transport", "wrong")
    registered(len)
    with pytest.raises(ConfigError, match="is not a subclass of Transport"):
        registry.transport("wrong")
    assert not issubclass(type(len), Transport)
