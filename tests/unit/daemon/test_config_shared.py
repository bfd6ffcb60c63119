"""A table that several sources share belongs to one pillow for each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.errors import ConfigErrors
from daemon.config.load import load

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
    transport: [{{ connection: warehouse, table: cases, shared: true }}]
"""


def loaded(folder: Path, **values: str) -> object:
    (folder / "pillowd.yaml").write_text(CONFIG.format(**values))
    return load(folder / "pillowd.yaml", {"HOME": str(folder)})


def test_pillows_on_two_sources_may_share_a_table(tmp_path: Path) -> None:
    assert loaded(tmp_path, first="true", database="paris")


def test_pillows_on_one_source_may_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"`public\.cases\.couch/london` of connection `warehouse`"):
        loaded(tmp_path, first="true", database="london")
