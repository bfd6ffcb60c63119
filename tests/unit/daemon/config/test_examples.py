"""The files in `etc/`: `pillowd.yaml` shows every key at its default, and the examples load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from daemon.config.load import load
from daemon.config.models import Config, DaemonOptions, LoggingOptions, PillowConfig
from daemon.config.validation.model_introspection import is_model, list_alternatives
from pillows import registry
from pillows.progress.checkpointer import CheckpointOptions as Checkpoints

ETC = Path(__file__).parents[4] / "etc"
TYPES = registry.transport_types()
CREDENTIALS = ("couchdb_password", "elasticsearch_api_key", "opensearch_password", "postgres_password")
#: Where the file shows something else than the default, and a comment says so.
SHOWN_OTHERWISE = {"database", "auth", "password", "filter", "enabled"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    credentials = tmp_path_factory.mktemp("credentials")
    for name in CREDENTIALS:
        (credentials / name).write_text("a secret")
    return load(ETC / "pillowd.yaml", {"CREDENTIALS_DIRECTORY": str(credentials)})


def written_keys(text: str) -> set[str]:
    """Every key in a text, commented or not: `key:` where a key may stand."""
    return set(re.findall(r"(?:^|[{,\s])\"?([a-z_]+)\"?:(?=\s|$)", text, flags=re.MULTILINE))


def block(text: str, heading: str) -> str:
    """The lines below a heading that are indented deeper, and comments between them."""
    first, *lines = text[text.index(heading) :].splitlines()
    ends = [n for n, line in enumerate(lines) if line.strip() and indent(line) <= indent(first)]
    return "\n".join([first, *lines[: ends[0] if ends else None]])


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


#: Keys that exclude another one, which is shown: these are only in comments.
EXCLUDED = {"databases", "exclude", "max_active", "sweep", "poll", "on_deleted"}


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a model and of the models in it."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for each in list_alternatives(field.annotation):
            if is_model(each):
                yield from keys_of(each)


def assert_defaults(shown: BaseModel, written: dict[str, Any]) -> None:
    """Every key of a model is written, and has its default where it has one."""
    for name, field in type(shown).model_fields.items():
        key = field.alias or name
        if key in EXCLUDED:
            continue
        assert key in written, f"{key} of {type(shown).__name__} is missing in etc/pillowd.yaml"
        if field.is_required() or key in SHOWN_OTHERWISE:
            continue
        assert getattr(shown, name) == field.get_default(call_default_factory=True), key


@pytest.mark.parametrize(
    ("section", "model"),
    [("daemon", DaemonOptions), ("logging", LoggingOptions), ("checkpoints", Checkpoints)],
)
def test_the_sections_of_the_process_are_at_their_defaults(config, section, model):
    assert getattr(config, section) == model()
    assert_defaults(getattr(config, section), config.root.find((section,)).to_plain())
    text = block((ETC / "pillowd.yaml").read_text(), f"\n{section}:".lstrip("\n"))
    assert set(keys_of(model)) <= written_keys(text)


@pytest.mark.parametrize("its_type", TYPES)
def test_every_key_of_every_connection_is_shown(config, its_type):
    name = next(name for name, entry in config.connections.items() if entry.type == its_type)
    options = config.connections[name].options
    assert isinstance(options, registry.transport(its_type).Connection)
    assert_defaults(options, config.root.find(("connections", name)).to_plain())
    text = block((ETC / "pillowd.yaml").read_text(), f"  {name}:\n")
    assert set(keys_of(type(options))) <= written_keys(text)


def test_every_key_of_a_pillow_is_shown(config):
    written = config.root.find(("pillows", "reference")).to_plain()
    pillow = config.pillows["reference"]
    assert pillow.outputs == ("reference",)
    for name in PillowConfig.model_fields:
        assert name in written
    assert_defaults(pillow.source, written["source"])
    assert_defaults(pillow.batch, written["batch"])
    assert_defaults(pillow.errors, written["errors"])
    assert pillow.transform is None
    text = block((ETC / "pillowd.yaml").read_text(), "  reference:\n")
    assert set(keys_of(PillowConfig)) <= written_keys(text)


@pytest.mark.parametrize("its_type", TYPES)
def test_every_key_of_every_output_is_shown(config, its_type):
    pillow = config.pillows["reference"]
    entries = [config.connections[entry.connection].type for entry in pillow.transport]
    index = entries.index(its_type)
    (output,) = pillow.transport[index].outputs.values()
    written = config.root.find(("pillows", "reference", "transport", index)).to_plain()
    assert_defaults(output, written)


def test_every_key_at_the_top_is_shown(config):
    text = (ETC / "pillowd.yaml").read_text()
    assert [key for key in Config.model_fields if not re.search(rf"^{key}:", text, re.MULTILINE)] == []


def test_the_example_pillows_load(config):
    names = {path.stem for path in (ETC / "pillows.d").glob("*.yaml")}
    assert len(names) >= 3
    assert names == set(config.pillows) - {"reference"}
    for name in names:
        assert config.root.find(("pillows", name)).place.file == str(ETC / "pillows.d" / f"{name}.yaml")


def test_no_example_warns(config):
    assert not config.warnings
