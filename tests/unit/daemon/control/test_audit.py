"""Every act is written before it is done and after, and a crash between the two is seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from checkpoints import StoreWriteError
from daemon.control import audit
from daemon.control.audit import Actor, AuditLog
from daemon.errors import ConflictError
from pillows.redaction import Redactor
from tests.support.clock import FakeClock

BY = Actor(via="unix", uid=1000, pid=7)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit", FakeClock(), Redactor(["hunter2hunter2"]))


def lines(log: AuditLog) -> list[dict[str, Any]]:
    return log.read()[0]


def reopened(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit", FakeClock())


def test_an_act_has_an_intent_and_an_end(log: AuditLog) -> None:
    with log.act("pause_pillow", by=BY, pillow="cases", details={"wait": "30s"}) as act:
        (intent,) = lines(log)
        act.before, act.after = "7-x", "9-y"
    assert intent == {
        "at": "2023-11-14T22:13:20.000+00:00",
        "id": intent["id"],
        "phase": "intent",
        "act": "pause_pillow",
        "pillow": "cases",
        "by": {"via": "unix", "uid": 1000, "pid": 7},
        "details": {"wait": "30s"},
    }
    end = lines(log)[1]
    assert {"id": intent["id"], "phase": "done", "before": "7-x", "after": "9-y"}.items() <= end.items()


@pytest.mark.parametrize(
    ("error", "phase", "reason"),
    [
        (ConflictError("it is paused already"), "refused", "it is paused already"),
        (StoreWriteError("the disk is full"), "failed", "the disk is full"),
        (ZeroDivisionError("a document's value"), "failed", "ZeroDivisionError"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
    ],
)
def test_an_error_is_the_end_of_the_act_and_goes_on(
    log: AuditLog, error: BaseException, phase: str, reason: str
) -> None:
    with pytest.raises(type(error)), log.act("reset_checkpoint", by=BY):
        raise error
    assert [line["phase"] for line in lines(log)] == ["intent", phase]
    assert lines(log)[1]["reason"] == reason


def test_tokens_lists_and_secrets_are_cut_or_masked(log: AuditLog) -> None:
    details = {"body": {"seq": "x" * 4000, "ids": ["a"] * 1000, "password": "p", "note": "is hunter2hunter2"}}
    with log.act("edit_checkpoint", by=BY, details=details) as act:
        act.before = "y" * 4000
    text = json.dumps(lines(log))
    assert "x" * 65 not in text
    assert "y" * 65 not in text
    assert len(text) < 1000
    assert "hunter2" not in text
    assert lines(log)[0]["details"]["body"]["password"] == "***"


def test_an_intent_without_an_end_is_found_and_ended_as_unknown(log: AuditLog, tmp_path: Path) -> None:
    with log.act("pause_pillow", by=BY):
        pass
    log.begin("reset_checkpoint", by=BY, pillow="cases")

    opened = reopened(tmp_path)
    assert [(each["act"], each["pillow"]) for each in opened.unfinished] == [("reset_checkpoint", "cases")]
    opened.close_unfinished()
    assert opened.unfinished, "this run still shows it"
    assert [line["phase"] for line in lines(opened)] == ["intent", "done", "intent", "unknown"]
    assert reopened(tmp_path).unfinished == []


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_a_line_that_a_crash_cut_harms_no_other(log: AuditLog, tmp_path: Path, kept: int) -> None:
    with log.act("pause_pillow", by=BY):
        pass
    (file,) = (tmp_path / "audit").iterdir()
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(whole[0] + whole[1][:kept])

    opened = reopened(tmp_path)
    assert len(opened.unfinished) == 1
    with opened.act("resume_pillow", by=BY):
        pass
    assert [line["act"] for line in lines(opened)] == ["pause_pillow", "resume_pillow", "resume_pillow"]


def test_files_are_rotated_and_the_oldest_removed(
    log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES", 1000)
    monkeypatch.setattr(audit, "FILES", 3)
    for number in range(40):
        with log.act("pause_pillow", by=BY, pillow=f"p{number}"):
            pass
    files = sorted((tmp_path / "audit").iterdir())
    assert len(files) == 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert max(path.stat().st_size for path in files) < 1500
    assert lines(log)[-1]["pillow"] == "p39"


def test_pages_hold_every_line_once(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES", 1000)
    for number in range(9):
        with log.act("pause_pillow", by=BY, pillow=f"p{number}"):
            pass
    found, after = [], ""
    while True:
        page, after = log.read(after, limit=4)
        if not page:
            break
        found += page
    assert found == lines(log)
    assert len(found) == 18
    with log.act("pause_pillow", by=BY, pillow="later"):
        pass
    assert [line["pillow"] for line in log.read(after)[0]] == ["later", "later"]


def test_nothing_is_done_where_the_intent_cannot_be_written(
    log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = []
    with pytest.raises(StoreWriteError, match=r"No space left on device.*Remedy"), log.act("pause", by=BY):
        done.append(1)
    assert done == []


def test_an_end_that_cannot_be_written_does_not_undo_the_act(
    log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with log.act("pause", by=BY):
        monkeypatch.setattr(os, "fsync", full)
    monkeypatch.undo()
    (tmp_path / "audit" / "00000001.jsonl").write_bytes(
        (tmp_path / "audit" / "00000001.jsonl").read_bytes().splitlines(keepends=True)[0]
    )
    assert len(reopened(tmp_path).unfinished) == 1
