"""How `pillowd mirror` ends, and the commands that it prints then: each can be pasted, and works."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pillowd
from daemon import __main__ as daemon_main
from daemon.cli.exit_codes import CommandError
from daemon.mirror import command
from daemon.mirror import run as mirror_run
from daemon.mirror.run import MirrorWatcher
from daemon.process.signals import Signals
from pillows.runtime.status import State, TailStatus
from tests.unit.daemon.mirror.console import Said

URL = "http://couch.example:5984/cases"


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Types a command line without servers; the summary is what the run is to have come to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mirror_run, "_require_connections", lambda _: None)

    def run(
        summary: dict[str, Any] | BaseException, *words: str, target: str = "sqlite:///x.sqlite"
    ) -> Result:
        def finish(wanted: Any, _config: Any, *, once: bool) -> dict[str, Any]:
            del once
            if isinstance(summary, BaseException):
                raise summary
            config = {"name": wanted.name, "target": wanted.target.type, "config": str(wanted.config_path)}
            return {"changes": 1400, "dead_letters": 0, "caught_up": True} | config | summary

        monkeypatch.setattr(mirror_run, "_run", finish)
        arguments = [URL, target, "--columns", "none", *words]
        return CliRunner().invoke(command.mirror, arguments, standalone_mode=False)

    return run


@pytest.mark.parametrize(
    ("summary", "words", "code"),
    [
        ({}, ["--once"], 0),
        ({"dead_letters": 1}, ["--once"], 3),
        ({"dead_letters": 1, "caught_up": False}, ["--once"], 1),
        ({"dead_letters": 1, "caught_up": False}, [], 0),
    ],
)
def test_exit_code_tells_the_result(typed, summary, words, code):
    """`--once && next-step` must not go on where documents are missing."""
    assert typed(summary, *words).return_value == code


def test_dead_letters_are_reported_with_the_remedy(typed):
    said = typed({"dead_letters": 1}, "--once").stdout

    assert "1 could not be written" in said
    assert "pillowd dead-letter list cases --config /" in said
    assert "`--columns none --name OTHER`" in said


def test_columns_are_no_remedy_for_a_target_without_columns(typed):
    assert "--columns" not in typed({"dead_letters": 1}, "--once", target="jsonl:lines").stdout


def test_ctrl_c_before_the_run_says_how_to_continue(typed):
    done = typed(KeyboardInterrupt())

    assert isinstance(done.exception, CommandError)
    assert "run the same command again" in str(done.exception)


def test_ctrl_c_during_the_import_shows_no_traceback(monkeypatch, capsys):
    def start() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon_main, "start", start)
    with pytest.raises(SystemExit) as ended:
        pillowd.main()

    assert ended.value.code == 1
    assert (
        capsys.readouterr().err
        == "pillowd: interrupted before the start. Remedy: run the same command again\n"
    )


def test_commands_in_remedies_get_the_mirrors_configuration():
    text = "put the old value back, or `pillowd checkpoint reset drift`; see `doc`"
    path = "/home/ada/my mirrors/pillowd.yaml"

    shown = mirror_run._with_config(text, path)

    (line,) = (part for part in shown.split("`") if part.startswith("pillowd"))
    assert shlex.split(line) == ["pillowd", "checkpoint", "reset", "drift", "--config", path]
    assert "see `doc`" in shown


def test_i5_a_remedy_of_the_daemon_becomes_one_of_the_mirror():
    """`on_recreated: reload` was a setting of a file that nobody had written."""
    told = Said()
    watch = MirrorWatcher(progress=told.progress(), signals=Signals(), once=True, config="/m/pillowd.yaml")
    reason = (
        "The database was recreated. Remedy: `pillowd checkpoint reset cases@couch/cases`, or"
        " `on_recreated: reload`; then `pillowd restart cases@couch/cases`"
    )
    watch([TailStatus(pillow="cases", source="couch/cases", state=State.FAILED, reason=reason)])
    assert watch.last
    assert watch.last.reason.partition("Remedy: ")[2] == (
        "`pillowd checkpoint reset cases@couch/cases --config /m/pillowd.yaml`, or"
        " `--on-recreated reload`; then run the same command again"
    )


def test_changed_columns_are_reported_once():
    told = Said()
    watch = MirrorWatcher(progress=told.progress(), signals=Signals(), once=False, config="/m/pillowd.yaml")
    status = TailStatus(pillow="cases", source="couch/cases", state=State.LIVE, pipeline_changed_at=1.0)

    for _ in range(2):
        watch([status])

    (line,) = (line for line in told.lines() if "columns" in line)
    assert "`pillowd checkpoint reset cases --config /m/pillowd.yaml`" in line
