"""Every command that a message prints as its remedy can be run as it is printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from checkpoints import TailKey
from daemon.cli.exit_codes import ExitCode
from daemon.cli.main import pillowd, run_command
from tests.support.remedies import list_remedies

KEY = TailKey("cases", "couch/cases")
CONFIG = """\
version: 1
daemon: { state_dir: state, admin: { listen: "unix:FOLDER/admin.sock" }, http: { listen: null } }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:1" }
  nowhere: { type: "null" }
pillows:
  cases: { source: { connection: couch, database: cases }, transport: [{ connection: nowhere }] }
"""
#: Commands that need what a unit test has not: they would run for ever, or connect.
NOT_RUN = ("pillowd run", "pillowd mirror", "pillowd status --watch")


REMEDIES = list_remedies(KEY)


def test_i5_remedies_are_found() -> None:
    assert len(REMEDIES) > 8
    assert "pillowd checkpoint reset cases@couch/cases" in REMEDIES


@pytest.mark.parametrize("remedy", REMEDIES)
def test_i5_a_remedy_is_a_command_with_all_that_it_needs(remedy: str) -> None:
    _, *words = shlex.split(remedy)
    command: click.Command = pillowd
    context = click.Context(pillowd)
    while isinstance(command, click.Group):
        assert words, remedy
        _, found, words = command.resolve_command(context, words)
        assert found is not None, remedy
        command = found
    context = click.Context(command)
    values, rest, _ = command.make_parser(context).parse_args(words)
    assert rest == []
    for each in command.params:
        if isinstance(each, click.Argument) and each.required:
            assert values.get(each.name or "") not in (None, ()), f"{remedy} lacks {each.name}"


@pytest.mark.parametrize("remedy", [each for each in REMEDIES if not each.startswith(NOT_RUN)])
def test_i5_a_remedy_runs_as_it_is_printed(
    remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PILLOWD_CONFIG", str(tmp_path / "pillowd.yaml"))
    (tmp_path / "pillowd.yaml").write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    (tmp_path / "FILE").write_text("{}")
    code = run_command(shlex.split(remedy)[1:])
    error = capsys.readouterr().err
    assert code not in (ExitCode.USAGE, ExitCode.CONFIG) or "can't be verified" in error, error
    assert "unexpected" not in error
