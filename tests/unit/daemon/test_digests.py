"""Which changes of a configuration make written rows old, and which do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.models import PillowConfig
from daemon.digests import digest, pipeline_digest

CONFIG = """\
version: 1
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:9" }
  other: { type: couchdb, url: "http://127.0.0.1:10" }
  lite: { type: sqlite, path: t.sqlite }
  search: { type: elasticsearch, hosts: ["http://127.0.0.1:9"] }
  lines: { type: jsonl, folder: lines }
pillows:
  cases:
    source: { connection: couch, database: cases }
    transform: { pick: [a, b] }
    transport:
      - { connection: lite, table: cases, columns: { a: "a text" } }
      - { connection: search, index: cases, pipeline: clean }
      - { connection: lines, file: cases.jsonl }
      - { connection: other, database: copy }
    batch: { max_docs: 10 }
"""


def settings(folder: Path, old: str = "", new: str = "") -> PillowConfig:
    assert old in CONFIG
    (folder / "pillowd.yaml").write_text(CONFIG.replace(old, new) if old else CONFIG)
    return load(folder / "pillowd.yaml", {"HOME": str(folder)}).pillows["cases"]


SHAPING = [
    ("database: cases", "database: cases, deletes: ignore"),
    ("database: cases", "database: cases, on_filtered: ignore"),
    ("database: cases", "database: cases, skip_design: false"),
    ("pick: [a, b]", "pick: [a]"),
    ('a: "a text"', 'a: "b text"'),
    ("    batch:", "    filter: { jmespath: doc.a }\n    batch:"),
    ("    batch:", "    attachments: { fetch: true }\n    batch:"),
    ("pipeline: clean", "pipeline: tidy"),
    ("database: copy", "database: copy, mode: replicate"),
]


@pytest.mark.parametrize(("old", "new"), SHAPING)
def test_what_shapes_the_rows_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    """A target that was filled before holds what would not be there, or lacks what would."""
    assert pipeline_digest(settings(tmp_path, old, new)) != pipeline_digest(settings(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("table: cases,", "table: cases, timeout: 5s,"),
        ("index: cases,", "index: cases, tombstone_ttl: 9d,"),
        ("database: copy", "database: copy, create: false"),
        ("database: cases", "database: cases, page: 500, on_missing: fail"),
        ("max_docs: 10", "max_docs: 20"),
    ],
)
def test_what_shapes_no_row_is_not(tmp_path: Path, old: str, new: str) -> None:
    assert pipeline_digest(settings(tmp_path, old, new)) == pipeline_digest(settings(tmp_path))


def test_a_checkpoint_of_before_is_no_change(tmp_path: Path) -> None:
    """Digests of an earlier pillowd were of these keys; where the rest is at its defaults, they stay."""
    plain = settings(tmp_path)
    wanted = {"filter", "transform", "attachments", "transport", "outputs"}
    assert pipeline_digest(plain) == digest(plain.model_dump(mode="json", include=wanted))
