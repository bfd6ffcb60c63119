"""Which documents `pillowd backfill` is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli.commands.operate.backfill import read_ids
from daemon.cli.main import run_command


def test_ids_are_lines_or_json_strings_each_once() -> None:
    text = 'a\n\n  b \n"line\\nbreak"\n"\\"quoted\\""\na\nin "the" middle\n'
    assert read_ids(text, "ids") == ["a", "b", "line\nbreak", '"quoted"', 'in "the" middle']


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give one of --ids"),
        (["--prefix", "a", "--selector", "{}"], "Give one of --ids"),
        (["--selector", "nope"], "is not JSON"),
        (["--selector", "[]"], "must be a JSON object"),
        (["--ids", "empty"], "empty has no ids"),
        (["--ids", "bad"], "bad, line 2: it is not a JSON string"),
    ],
)
def test_a_wrong_choice_is_said_at_once(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n")
    Path("bad").write_text('fine\n"bad\n')
    Path("pillowd.yaml").write_text("version: 1\n")
    assert run_command(["backfill", "cases", *words, "--config", "pillowd.yaml"]) in (1, 2)
    assert said in capsys.readouterr().err
