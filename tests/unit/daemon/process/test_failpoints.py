"""Failpoints: where they are, and what they do there."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from checkpoints.files.directory import Directory
from daemon.process import failpoints
from pillows.errors import ConfigError


@pytest.mark.parametrize("name", [*failpoints.PLACES, "before-sqlite", "after-jsonl"])
def test_every_place_is_a_method_that_is_there(name: str) -> None:
    place = failpoints.find_place(name)
    assert place is not None
    owner, method = failpoints.find(place)
    assert callable(getattr(owner, method))


def test_no_setting_arms_nothing() -> None:
    assert failpoints.parse("") == []


@pytest.mark.parametrize("setting", ["nowhere:1", "ack", "ack:", "ack:x", "ack:1:ENOTHING", "ack:1:EIO:x"])
def test_what_is_no_failpoint_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid failpoint"):
        failpoints.parse(setting)


def test_an_error_is_raised_as_often_as_was_asked_for(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "_fsync", Directory._fsync)  # put back afterwards
    failpoints.arm("checkpoint-fsync:2:ENOSPC:2")
    directory = Directory(tmp_path)
    directory.sync()
    for _ in range(2):
        with pytest.raises(OSError, match="checkpoint-fsync") as caught:
            directory.sync()
        assert caught.value.errno == errno.ENOSPC
    directory.sync()
    directory.close()


def test_a_failpoint_without_an_error_kills_at_its_count() -> None:
    code = (
        "from daemon.process import failpoints; from pillows.progress.watermark import Watermark\n"
        "failpoints.arm('ack:3'); w = Watermark()\n"
        "for n in range(5): w.ack({}); print(n, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1"])


def test_d5_a_failpoint_without_the_second_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[str] = []
    monkeypatch.setattr(failpoints, "arm", armed.append)
    with pytest.raises(ConfigError, match="PILLOWD_FAILPOINT is set"):
        failpoints.arm_from({"PILLOWD_FAILPOINT": "ack:1"})
    assert armed == []
    failpoints.arm_from({"PILLOWD_FAILPOINT": "ack:1", "PILLOWD_TESTING": "1"})
    failpoints.arm_from({"PILLOWD_TESTING": "1"})
    assert armed == ["ack:1", ""]
