"""A table that several sources share belongs to one pillow for each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.problems import ConfigErrors

CONFIG = """
version: 1
connections:
  couch: {{ type: couchdb, url: "http://localhost:5984" }}
  warehouse: {{ type: postgres, dsn: "host=localhost" }}
pillows:
  london:
    source: {{ connection: couch, database: london }}
    transport: [{{ connection: warehouse, table: cases, shared: {first} }}]
  other:
    source: {{ connection: couch, database: {database} }}
    transport: [{{ connection: warehouse, table: cases, shared: {second} }}]
"""


def loaded(folder: Path, **values: str) -> object:
    (folder / "pillowd.yaml").write_text(CONFIG.format(**{"second": "true", **values}))
    return load(folder / "pillowd.yaml", {"HOME": str(folder)})


def test_pillows_on_two_sources_may_share_a_table(tmp_path: Path) -> None:
    assert loaded(tmp_path, first="true", database="paris")


def test_pillows_on_one_source_may_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"`public\.cases\.couch/london` of connection `warehouse`"):
        loaded(tmp_path, first="true", database="london")


@pytest.mark.parametrize(("first", "second"), [("true", "false"), ("false", "true")])
def test_table_of_one_pillow_cannot_be_shared(tmp_path: Path, first: str, second: str) -> None:
    """Its key has no `_source`; the daemon would find out when the pillow starts."""
    with pytest.raises(ConfigErrors, match=r"pillow `other` writes .* which belongs to `london`"):
        loaded(tmp_path, first=first, second=second, database="paris")


def test_only_the_pillow_that_does_not_share_is_reported(tmp_path: Path) -> None:
    third = """
  third:
    source: { connection: couch, database: rome }
    transport: [{ connection: warehouse, table: cases, shared: true }]
"""
    text = CONFIG.format(first="true", second="false", database="paris") + third.strip("\n")
    (tmp_path / "pillowd.yaml").write_text(text)
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path / "pillowd.yaml", {"HOME": str(tmp_path)})
    assert [mistake.key for mistake in raised.value.problems] == ["pillows.other.transport[0]"]
