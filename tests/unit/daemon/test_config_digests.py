"""Which changes of a configuration make written rows old, and which do not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.models import PillowConfig
from daemon.config.plugins import digest_functions, digest_module
from daemon.config_digests import digest, digest_settings, pipeline_digest

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


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("pick: [a, b]", "pick: [a]", "transform"),
        ("pipeline: clean", "pipeline: tidy", "transport"),
        ("    batch:", "    filter: { jmespath: doc.a }\n    batch:", "filter"),
        ("database: cases", "database: others", "source"),
        ("database: cases", "database: cases, deletes: ignore", "source"),
        ("max_docs: 10", "max_docs: 20", None),
    ],
)
def test_each_key_that_shapes_rows_has_a_digest(tmp_path: Path, old: str, new: str, key: str | None) -> None:
    before, after = digest_settings(settings(tmp_path)), digest_settings(settings(tmp_path, old, new))
    differing = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert differing == ([] if key is None else [key])


@pytest.mark.parametrize(("old", "new"), SHAPING)
def test_what_shapes_the_rows_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    """A target that was filled before holds what would not be there, or lacks what would."""
    assert pipeline_digest(settings(tmp_path, old, new)) != pipeline_digest(settings(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("table: cases,", "table: cases, timeout: 5s,"),
        ("index: cases,", "index: cases, tombstone_ttl: 9d,"),
        ("index: cases,", "index: cases, settings: { refresh_interval: 5s }, replaces: theirs,"),
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
    before = plain.model_dump(mode="json", include=wanted)
    table = before["transport"][0]["outputs"]["cases"]
    assert (table.pop("deletes"), table.pop("deleted_column")) == ("hard", "_deleted_at")
    assert pipeline_digest(plain) == digest(before)


@pytest.fixture
def code(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., list[str]]]:
    """Digests of the code of a pillow whose function stands in such a file."""

    def digests(text: str, *, part: str = "transform") -> list[str]:
        module = f"code_{len(list(tmp_path.glob('*.py')))}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(text)
        request.addfinalizer(lambda: sys.modules.pop(module, None))
        step = f"    {part}: {{ python: '{module}:row' }}\n"
        old = "    transform: { pick: [a, b] }\n"
        return digest_functions(settings(tmp_path, old, step + old * (part == "filter")), [tmp_path])

    yield digests
    sys.path.remove(str(tmp_path))


ROW = "def row(doc):\n    return doc\n"


@pytest.mark.parametrize("part", ["transform", "filter"])
def test_another_text_of_a_functions_module_is_another_code(
    code: Callable[..., list[str]], part: str
) -> None:
    before = code(ROW, part=part)
    assert len(before) == 1
    assert code("# why\n\n" + ROW.replace(":\n", ":  # because\n\n"), part=part) == before
    assert code(ROW.replace("return doc", "return None"), part=part) != before
    assert code("LIMIT = 3\n" + ROW, part=part) != before


def test_what_looks_like_a_comment_in_a_text_is_code(code: Callable[..., list[str]]) -> None:
    text = ROW + 'PAGE = """\n# one\n\nend\n"""\n'
    assert code(text) != code(text.replace("# one", "# two"))
    assert code(text) != code(text.replace("\n\nend", "\nend"))


def test_the_file_that_was_named_counts_whatever_made_the_function(code: Callable[..., list[str]]) -> None:
    text = "from functools import partial\ndef row(doc, n):\n    return doc\nrow = partial(row, n=1)\n"
    assert code(text) != code(text.replace("n=1", "n=2"))


def test_the_file_counts_in_which_a_registered_function_was_written(tmp_path: Path) -> None:
    name = f"rows_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "from functools import partial\nfrom pillows.registry import register\n"
        f"@partial(register('transform', '{name}'))\ndef row(doc):\n    return doc\n"
    )
    chosen = settings(tmp_path, "transform: { pick: [a, b] }", f"transform: {{ name: {name} }}")
    try:
        assert digest_functions(chosen, [tmp_path]) == [digest_module(name)]
        assert digest_module(name)
    finally:
        sys.path.remove(str(tmp_path))


def test_what_has_no_text_has_no_digest() -> None:
    assert digest_module("builtins") == digest_module("no.such") == ""


def test_code_is_part_of_what_shapes_rows(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert pipeline_digest(plain, ["a"]) != pipeline_digest(plain, ["b"])
    assert pipeline_digest(plain, []) == pipeline_digest(plain)
