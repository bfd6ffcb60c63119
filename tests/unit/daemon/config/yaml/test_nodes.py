"""YAML is read as in version 1.2."""

from __future__ import annotations

import pytest

from daemon.config.yaml.nodes import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("true", True),
        ("-12", -12),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_scalars_are_what_yaml_1_2_says(text, value):
    node, mistakes = parse_yaml(f"key: {text}", "x.yaml")
    assert not mistakes
    assert node.to_plain() == {"key": value}


def test_merge_keys_and_aliases_work():
    node, mistakes = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n", "x.yaml")
    assert not mistakes
    assert node.to_plain() == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
