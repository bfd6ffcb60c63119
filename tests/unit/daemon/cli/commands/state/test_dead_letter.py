"""The list of dead letters: by reason, and chosen by stage, error and date."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from checkpoints import TailKey
from daemon.cli.main import run_command
from daemon.state_dir import open_state_dir
from pillows.dead_letters.dead_letter import PIPELINE
from pillows.dead_letters.store import DeadLetter
from tests.support.clock import FakeClock

MIDNIGHT = datetime(2026, 11, 29, tzinfo=UTC).timestamp()

CONFIG = """\
version: 1
daemon: { state_dir: state, admin: { listen: "unix:FOLDER/admin.sock" }, http: { listen: null } }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:1" }
  nowhere: { type: "null" }
pillows:
  cases: { source: { connection: couch, database: cases }, transport: [{ connection: nowhere }] }
  forms: { source: { connection: couch, database: forms }, transport: [{ connection: nowhere }] }
"""


def letter(pillow: str, id: str, error: str, *, stage: str = "transform", at: float = MIDNIGHT) -> DeadLetter:
    return DeadLetter(
        tail=TailKey(pillow, f"couch/{pillow}"),
        transport=PIPELINE,
        id=id,
        rev="1-a",
        leaf_version=1,
        stage=stage,
        error=error,
        seq="1",
        config="",
        at=at,
        first_at=at,
        failures=1,
        tries=1,
        aborted=False,
        next_retry_at=at,
    )


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "pillowd.yaml"
    file.write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    clock = FakeClock(auto=False)
    clock.advance(MIDNIGHT - clock.wall())
    with open_state_dir(tmp_path / "state", clock) as state:
        many = [letter("cases", f"c{n}", f"the value {n} of 'a{n}' is too large") for n in range(1204)]
        state.dead_letters.add([*many, letter("cases", "odd", "KeyError: x", stage="filter")])
        clock.advance(3600)
        state.dead_letters.add([letter("forms", "late", "KeyError: y", at=MIDNIGHT + 3600)])
    return str(file)


def ids(capsys: pytest.CaptureFixture[str], config: str, *arguments: str) -> list[str]:
    capsys.readouterr()
    assert run_command(["dead-letter", "list", *arguments, "--json", "--config", config]) == 0
    return [each["id"] for each in json.loads(capsys.readouterr().out)]


def test_i12_one_cause_is_one_line(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dead-letter", "list", "cases", "--config", config]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "cases@couch/cases" in line]
    assert len(lines) == 2
    assert "1,204" in lines[0]
    assert "KeyError: x" in lines[1]


def test_i12_a_limit_says_what_is_left_out(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dead-letter", "list", "cases", "--each", "--limit", "3", "--config", config]) == 0
    out = capsys.readouterr().out
    assert out.count("cases@couch/cases") == 3
    assert "and 1,202 more lines; --limit 1205 prints all" in out
    assert len(ids(capsys, config, "cases")) == 1205
    assert len(ids(capsys, config, "cases", "--limit", "2")) == 2


def test_g6_they_are_chosen_by_stage_error_and_date_over_all_pillows(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(ids(capsys, config)) == 1206
    assert ids(capsys, config, "--stage", "filter") == ["odd"]
    assert ids(capsys, config, "--error", "keyerror") == ["odd", "late"]
    assert ids(capsys, config, "--since", "2026-11-29 00:30:00") == ["late"]
    assert ids(capsys, config, "--until", "2026-11-29 00:30:00", "--error", "KeyError") == ["odd"]
    assert ids(capsys, config, "forms", "--until", "2026-11-29") == []
    assert run_command(["dead-letter", "list", "--stage", "nowhere", "--config", config]) == 2


def test_show_tells_every_detail_of_one_document(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dead-letter", "show", "cases", "odd", "--config", config]) == 0
    out = capsys.readouterr().out
    assert "KeyError: x" in out
    assert "1, 1 of this version" in out
    assert run_command(["dead-letter", "show", "cases", "odd", "--json", "--config", config]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["rev"], shown["stage"]) == ("odd", "1-a", "filter")


@pytest.mark.parametrize(
    ("command", "said"), [("retry", "will be retried"), ("discard", "discarded")], ids=["retry", "discard"]
)
def test_one_or_all_are_retried_and_discarded(
    config: str, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    assert run_command(["dead-letter", command, "cases", "odd", "--config", config]) == 0
    assert f"cases@couch/cases: 1 dead letter {said}" in capsys.readouterr().out
    left = 1204 if command == "discard" else 1205
    assert len(ids(capsys, config, "cases")) == left
    assert run_command(["dead-letter", command, "cases", "--all", "--json", "--config", config]) == 0
    assert left in json.loads(capsys.readouterr().out).values()
    assert len(ids(capsys, config)) == (1 if command == "discard" else 1206)


@pytest.mark.parametrize("chosen", [(), ("odd", "--all")], ids=["nothing", "both"])
def test_a_choice_is_either_documents_or_all(
    config: str, capsys: pytest.CaptureFixture[str], chosen: tuple[str, ...]
) -> None:
    assert run_command(["dead-letter", "discard", "cases", *chosen, "--config", config]) == 2
    assert "Name documents, or use --all." in capsys.readouterr().err
    assert len(ids(capsys, config, "cases")) == 1205
