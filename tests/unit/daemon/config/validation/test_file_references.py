"""Paths and mapping files in a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.config.problems import ConfigErrors
from tests.support.configuration import GOOD


def test_a_path_starts_at_the_file_that_names_it(config, tmp_path):
    text = GOOD + "include: [parts/*.yaml]\n"
    text = text.replace("  shutdown_timeout: 30s", "  state_dir: state\n  plugins_path: [plugins, /opt/x]")
    loaded = config(text)
    assert loaded.daemon.state_dir == tmp_path / "state"
    assert loaded.daemon.plugins_path == (tmp_path / "plugins", Path("/opt/x"))
    more = "connections: { other: { type: sqlite, path: other.sqlite } }\n"
    assert config(text, parts__a=more).connections["other"].options.path == tmp_path / "parts/other.sqlite"


def test_mapping_may_be_in_a_file_of_its_own(config, tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps({"properties": {"name": {"type": "text"}}}))
    text = GOOD.replace(
        "  lite:\n    type: sqlite\n    path: /var/lib/pillowd/reports.sqlite",
        "  search: { type: elasticsearch, hosts: ['http://es:9200'] }",
    ).replace("connection: lite, table: cases", "connection: search, index: cases, mapping: cases.json")
    output = config(text).pillows["cases"].transport[0].outputs["cases"]
    assert output.mapping == {"properties": {"name": {"type": "text"}}}
    (tmp_path / "cases.json").write_text('{"properties":\n  oops}')
    with pytest.raises(ConfigErrors, match=r":17: .*mapping: the file .*cases.json: line 2: Expecting value"):
        config(text)
