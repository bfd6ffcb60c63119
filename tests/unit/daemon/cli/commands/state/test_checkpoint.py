"""The commands for checkpoints, on the files of a daemon that does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checkpoints import Checkpoint, Seq, TailKey
from daemon.cli.main import run_command
from daemon.state_dir import open_state_dir
from tests.support.clock import FakeClock

CONFIG = """\
version: 1
daemon: { state_dir: state, admin: { listen: "unix:FOLDER/admin.sock" }, http: { listen: null } }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:1" }
  copy: { type: sqlite, path: copy.sqlite }
  files: { type: jsonl, folder: rows }
pillows:
  cases: { source: { connection: couch, database: cases }, transport: [{ connection: copy, table: cases }] }
  forms: { source: { connection: couch, database: forms }, transport: [{ connection: files, file: forms }] }
"""
CASES, REMOVED = TailKey("cases", "couch/cases"), TailKey("removed", "couch/old")


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "pillowd.yaml"
    file.write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    with open_state_dir(tmp_path / "state", FakeClock()) as state:
        state.store.edit(
            CASES, lambda _: Checkpoint(seq=Seq.of("7-x"), changes=1207, epoch=3, pass_done=True)
        )
        state.store.edit(REMOVED, lambda _: Checkpoint(seq=Seq.of("2-y")))
    return str(file)


@pytest.fixture
def run(config: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; return its code and what it printed on both streams."""

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run_command(["checkpoint", *arguments, "--config", config])
        out, err = capsys.readouterr()
        return code, out + err

    return call


def saved(run: Any, key: str = "cases") -> dict[str, Any]:
    code, out = run("get", key, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_get_shows_it_to_people_and_to_programs(run: Any) -> None:
    code, out = run("get", "cases")
    assert code == 0
    assert "7-x" in out
    assert "complete" in out
    assert saved(run)["seq"] == "7-x"
    assert saved(run)["changes"] == 1207


def test_list_marks_that_of_a_removed_pillow(run: Any) -> None:
    code, out = run("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if "@couch/" in line}
    assert "1,207" in lines[str(CASES)]
    assert "orphan" not in lines[str(CASES)]
    assert "orphan" in lines[str(REMOVED)]
    assert [each["key"] for each in json.loads(run("list", "--orphans", "--json")[1])] == [str(REMOVED)]


def test_set_without_its_source_needs_force(run: Any) -> None:
    code, out = run("set", "cases", "9-z")
    assert code != 0
    assert saved(run)["seq"] == "7-x", out

    code, out = run("set", "cases", "9-z", "--force")
    assert code == 0
    assert "was at 7-x, is at 9-z" in out
    assert saved(run)["seq"] == "9-z"
    assert "7-x" in run("history", "cases")[1]
    assert any(each["seq"] == "7-x" for each in json.loads(run("history", "cases", "--json")[1]))


def test_only_the_source_knows_now(run: Any) -> None:
    code, out = run("set", "cases", "now", "--force")
    assert code == 2
    assert "leave out --force" in out


def test_reset_and_rewind_say_their_effect_first(run: Any) -> None:
    code, out = run("rewind", "cases", "--beginning", "--yes")
    assert code == 0
    assert "rows that differ are written again" in out
    assert saved(run)["pass_done"] is True

    code, out = run("reset", "cases", "--yes")
    assert code == 0
    assert "every row is written again" in out
    assert saved(run)["pass_done"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give one of --ago and --beginning"),
        (("--ago", "2h", "--beginning"), "Give one of --ago and --beginning"),
        (("--ago", "yesterday"), "--ago needs a number with a unit"),
    ],
)
def test_rewind_asks_for_one_place(run: Any, arguments: tuple[str, ...], said: str) -> None:
    code, out = run("rewind", "cases", *arguments)
    assert code == 2
    assert said in out
    assert saved(run)["seq"] == "7-x"


def test_what_was_exported_can_be_imported(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "exported.json"
    file.write_text(run("export", "cases")[1])
    assert run("set", "cases", "9-z", "--force")[0] == 0

    assert run("import", "cases", str(file), "--force")[0] == 0
    assert saved(run)["seq"] == "7-x"
    assert saved(run)["changes"] == 1207


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        (" \n", (), "is empty"),
        ("{", (), "is not JSON"),
        ("[]", (), "is not an exported checkpoint"),
        ('{"checkpoint": {}}', (), "is not an exported checkpoint"),
        ("{}", ("--entry", "x"), "--entry needs --from"),
    ],
)
def test_nothing_else_can_be_imported(
    run: Any, tmp_path: Path, text: str, more: tuple[str, ...], said: str
) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    code, out = run("import", "cases", str(file), *more)
    assert code != 0
    assert said in out
    assert saved(run)["seq"] == "7-x"


def test_an_unknown_pillow_is_named_with_a_similar_one(run: Any) -> None:
    code, out = run("get", "casse")
    assert code != 0
    assert "cases" in out
