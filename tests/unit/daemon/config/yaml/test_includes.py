"""The files that a configuration includes."""

from __future__ import annotations

import pytest

from daemon.config.problems import ConfigErrors
from tests.support.configuration import GOOD


def part(name: str) -> str:
    transport = f"[{{ connection: lite, table: {name} }}]"
    source = f"{{ connection: couch, database: {name} }}"
    return f"pillows:\n  {name}:\n    source: {source}\n    transport: {transport}\n"


def test_included_files_are_read_in_order_relative_to_the_main_file(config):
    text = GOOD + "include: [parts/*.yaml]\n"
    loaded = config(text, parts__b=part("second"), parts__a=part("first"))
    assert list(loaded.pillows) == ["cases", "first", "second"]


def test_glob_may_match_nothing(config):
    assert list(config(GOOD + "include: [parts/*.yaml]\n").pillows) == ["cases"]


def test_a_file_that_two_globs_match_is_read_once(config):
    loaded = config(GOOD + "include: [parts/*.yaml, parts/a.yaml, '*.yaml']\n", parts__a=part("first"))
    assert set(loaded.pillows) == {"cases", "first"}


def test_connections_may_be_included_and_used_across_files(config):
    more = "version: 1\nconnections: { other: { type: sqlite, path: x.sqlite } }\n"
    text = GOOD.replace("connection: lite", "connection: other") + "include: [more.yaml]\n"
    assert config(text, more=more).pillows["cases"].transport[0].connection == "other"


def test_included_file_cannot_include_others(config):
    with pytest.raises(ConfigErrors, match=r"more.yaml:1: include: an included file cannot include others"):
        config(GOOD + "include: [more.yaml]\n", more="include: [x.yaml]\n")
