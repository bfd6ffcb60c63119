"""Edits of a checkpoint: an unknown position is refused, and the command says what the edit will do."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    """A pillow into a table and into lines, which is not running."""
    couch_db.bulk([{"_id": f"d{n}"} for n in range(5)])
    connections = {
        "couch": couchdb(couch.url, couch.auth),
        "lite": {"type": "sqlite", "path": str(tmp_path / "lite.sqlite")},
        "lines": {"type": "jsonl", "folder": str(tmp_path / "lines")},
    }
    transport = [{"connection": "lite", "table": "cases"}, {"connection": "lines", "file": "cases"}]
    pillow = {"source": {"connection": "couch", "database": couch_db.name}, "transport": transport}
    with Pillowd(tmp_path, pillows={"cases": pillow}, connections=connections) as daemon:
        yield daemon


def get_seq(pillowd: Pillowd) -> Any:
    return json.loads(pillowd.command("checkpoint", "get", "cases", "--json").stdout)["seq"]


def test_f5_set_to_nonsense_is_refused_unless_forced(pillowd: Pillowd) -> None:
    done = pillowd.command("checkpoint", "set", "cases", "nonsense")
    assert done.returncode == 1
    assert "the source does not know this position" in done.stderr
    assert done.stderr.count("Remedy") == 1
    assert pillowd.command("checkpoint", "get", "cases").returncode == 1  # nothing was saved
    assert pillowd.command("checkpoint", "set", "cases", "nonsense", "--force").returncode == 0
    assert get_seq(pillowd) == "nonsense"


def test_f5_a_source_that_is_not_there_is_not_said_to_lack_the_position(pillowd: Pillowd) -> None:
    settings = yaml.safe_load(pillowd.config.read_text())
    settings["pillows"]["cases"]["source"] |= {"database": "typing-error", "on_missing": "fail"}
    pillowd.config.write_text(yaml.safe_dump(settings))
    done = pillowd.command("checkpoint", "set", "cases", "1-abc")
    assert done.returncode == 1
    assert "the source can't be asked: " in done.stderr
    assert "Remedy: create the database, or correct its name" in done.stderr


def test_f5_set_to_now_is_the_end_of_the_feed(pillowd: Pillowd, couch_db: CouchDatabase) -> None:
    done = pillowd.command("checkpoint", "set", "cases", "now")
    assert done.returncode == 0, done.stderr
    assert str(get_seq(pillowd)).startswith("5")
    couch_db.bulk([{"_id": "later"}])
    previewed = json.loads(pillowd.command("preview", "cases", "--limit", "9", "--json").stdout)
    assert [each["id"] for each in previewed] == ["later"]
    assert pillowd.command("checkpoint", "set", "cases", "now", "--force").returncode == 2


@pytest.mark.parametrize("options", [[], ["--from", "couchdb-progress"], ["--from", "pillowtop"]])
@pytest.mark.parametrize("text", ["{}", "", "[]", " \n", '{"format": 1, "checkpoint": {}}'])
def test_f5_import_of_nothing_is_refused(pillowd: Pillowd, options: list[str], text: str) -> None:
    file = pillowd.folder / "file"
    file.write_text(text)
    done = pillowd.command("checkpoint", "import", "cases", str(file), *options)
    assert done.returncode == 1
    assert "Remedy: " in done.stderr
    assert pillowd.command("checkpoint", "get", "cases").returncode == 1


def test_f5_import_of_a_position_that_the_source_does_not_know_is_refused(pillowd: Pillowd) -> None:
    pillowd.command("checkpoint", "set", "cases", "nonsense", "--force")
    file = pillowd.folder / "file"
    file.write_text(pillowd.command("checkpoint", "export", "cases").stdout)
    assert pillowd.command("checkpoint", "import", "cases", str(file)).returncode == 1
    assert pillowd.command("checkpoint", "import", "cases", str(file), "--force").returncode == 0


@pytest.mark.parametrize("edit", [["reset"], ["rewind", "--beginning"]], ids=["reset", "rewind"])
def test_i9_an_edit_asks_on_a_terminal_and_says_what_it_does(pillowd: Pillowd, edit: list[str]) -> None:
    pillowd.command("checkpoint", "set", "cases", "now")
    before = get_seq(pillowd)
    assert on_terminal(pillowd, edit, b"n\n") == 1
    assert get_seq(pillowd) == before
    assert on_terminal(pillowd, edit, b"y\n") == 0
    assert get_seq(pillowd) != before

    done = pillowd.command("checkpoint", edit[0], "cases", *edit[1:])
    assert done.returncode == 0  # not a terminal
    assert "lines (cases): every row is appended once more" in done.stderr
    assert "lite (cases): " in done.stderr
    assert "written again" in done.stderr


def test_i9_yes_does_not_ask(pillowd: Pillowd) -> None:
    assert on_terminal(pillowd, ["reset"], b"", "--yes") == 0


def on_terminal(pillowd: Pillowd, edit: list[str], typed: bytes, *options: str) -> int:
    """Run an edit on a terminal, type an answer, and return the exit code."""
    ours, its = pty.openpty()
    try:
        os.write(ours, typed)
        call = [
            *PILLOWD,
            "checkpoint",
            edit[0],
            "cases",
            *edit[1:],
            *options,
            "--config",
            str(pillowd.config),
        ]
        return subprocess.run(call, stdin=its, capture_output=True, timeout=60, check=False).returncode
    finally:
        os.close(ours)
        os.close(its)
