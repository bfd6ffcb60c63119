"""Whatever a file holds, loading it gives a configuration or says what is wrong with it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.config.dump import format_config
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from tests.support.configuration import ENVIRON, GOOD
from tests.support.sizes import proving, size


def examples(*, ci: int, proof: int) -> settings:
    """Few examples with fixed seeds in CI, many random ones for a proof."""
    return settings(max_examples=size(ci=ci, proof=proof), deadline=None, derandomize=not proving())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "pillowd.yaml"


def loads_or_explains(file, content: bytes) -> None:
    file.write_bytes(content)
    try:
        format_config(load(file, ENVIRON))
    except ConfigErrors as errors:
        raised = errors
    else:
        return
    assert raised.problems
    assert all(error.message and error.remedy for error in raised.problems)
    assert len(str(raised).encode().splitlines()) == len(raised.problems) + 1


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["couch", "lite", "cases", "${X}", "${X:1}", "5s", "1MiB", "couchdb", "sqlite", "*"]),
)
WORDS = GOOD.replace(":", " ").replace("{", " ").replace(",", " ").split()
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@examples(ci=40, proof=5000)
@given(text=st.text())
@example(text='"\\UFFFFFFFF"')
@example(text='"\\ud800": 1')
@example(text="? [a]\n: b")
@example(text="!!int x: !!float y")
@example(text="version: " + "9" * 5000)
@example(text="&a [*a]")
@example(text="<<: 1")
@example(text="include: ['\0']")
@example(text="include: [[]]\nversion: 1")
@example(text="include: ['**/*']\nversion: 1")
@example(text="%YAML 1.3\n---\n")
@example(text="\ufeffversion: 1")
@example(text="version: !!bool 1")
def test_any_text(file, text):
    loads_or_explains(file, text.encode("utf-8", "surrogatepass"))


@examples(ci=40, proof=3000)
@given(content=st.binary())
def test_any_bytes(file, content):
    loads_or_explains(file, content)


@examples(ci=40, proof=5000)
@given(value=st.dictionaries(KEYS, VALUES, max_size=6))
@example(value={"version": 1, "daemon": {"state_dir": "a\0b", "control": {"listen": "unix:/\0"}}})
@example(
    value={"version": 1, "connections": {"a": {"type": ["sqlite"]}}, "pillows": {"b": {"transport": [[]]}}}
)
@example(value={"version": 1, "pillows": {"b": {"transport": {}, "outputs": [1, {}], "enabled": []}}})
@example(value={"version": 1, "pillows": {"b": {"outputs": [], "transport": [{"connection": []}]}}})
@example(value={"version": 1, "pillows": []})
@example(value={"version": True, "connections": None, "pillows": None})
def test_any_structure(file, value):
    loads_or_explains(file, yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace"))


@examples(ci=40, proof=10_000)
@given(seed=st.integers(0, 2**32))
def test_any_damage_to_a_good_file(file, seed):
    """Lines and characters of a good file are removed, doubled, moved and replaced."""
    dice = random.Random(seed)
    text = list(GOOD)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(text))
        match dice.randrange(4):
            case 0:
                del text[at : at + dice.randint(1, 12)]
                text = text or ["a"]
            case 1:
                text[at:at] = text[dice.randrange(len(text)) :][: dice.randint(1, 30)]
            case 2:
                text[at] = dice.choice("{}[]:#&*!|>'\"%@`,-? \n\t$~")
            case 3:
                text[at:at] = "\n" + " " * dice.randint(0, 8)
    loads_or_explains(file, "".join(text).encode())


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.sampled_from(["no", "1e5", "0x1", "010", "~", "1:30", "2024-01-01", "<<", "=", "- a", "a: b", "#"]),
    st.sampled_from(["${A}", "$${A}", "$$${", "a${b}c", "${"]),
)


@examples(ci=40, proof=3000)
@given(user=TEXTS, since=TEXTS, table=TEXTS, seconds=st.integers(1, 10**9), bytes_=st.integers(1, 10**12))
def test_formatted_configuration_loads_as_the_same(file, user, since, table, seconds, bytes_):
    """Any text survives being shown and loaded again, and so does any duration and size."""
    plain = yaml.safe_load(GOOD)
    plain["connections"]["couch"]["auth"]["username"] = user.replace("${", "$${")
    pillow = plain["pillows"]["cases"]
    pillow["source"]["since"] = since.replace("${", "$${")
    pillow["transport"][0]["table"] = table.replace("${", "$${")
    pillow["batch"] = {"max_bytes": f"{bytes_}B"}
    plain["daemon"]["restart"] = {"initial": "1ms", "max": f"{seconds}ms"}
    file.write_text(json.dumps(plain))  # JSON is YAML, with every text in quotes
    config: Any = load(file, ENVIRON)
    assert config.connections["couch"].options.auth.username == user
    assert config.pillows["cases"].source.since == since
    assert config.pillows["cases"].transport[0].outputs["cases"].table == table
    file.write_text(format_config(config))
    again = load(file, ENVIRON)
    assert again == config.with_origin(again.root, again.warnings)
