"""The JSON Schema and the examples agree."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from daemon.config.schema import make_schema
from tests.acceptance.process import ROOT

SCHEMA = ROOT / "etc" / "pillowd.schema.json"


@pytest.fixture(scope="module")
def validator() -> Any:
    """One for all: to check the schema itself takes most of the time."""
    schema = make_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


EXAMPLES = sorted([*(ROOT / "etc").glob("*.yaml"), *(ROOT / "etc" / "pillows.d").glob("*.yaml")])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_name_their_schema_and_fit_it(validator: Any, path: Path) -> None:
    first, _, _ = path.read_text().partition("\n")
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    schema = path.parent / first.removeprefix(prefix)
    assert schema.resolve() == SCHEMA

    validator.validate(yaml.safe_load(path.read_text()))


def test_a_checkout_that_is_set_up_has_the_schema_that_the_examples_name():
    """It is made, not kept: kept, it would lag behind the models."""
    recipe = (ROOT / "Makefile").read_text()

    assert recipe.count(f"config schema > {SCHEMA.relative_to(ROOT)}") == 2
    listed = subprocess.run(
        ["git", "ls-files", str(SCHEMA)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        "{version: 1, pilows: {}}",
        "{pillows: {a: {source: {connection: c}}}}",
        "{daemon: {}}",
        "{version: 1, checkpoints: {interval: 5}}",
    ],
)
def test_the_schema_refuses_mistakes(validator: Any, text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(yaml.safe_load(text))
