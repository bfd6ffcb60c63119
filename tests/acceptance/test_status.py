"""`pillowd status`: watched, and as a health check."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import PILLOWD, Pillowd
from tests.support.waiting import wait_until

#: A key of the configuration that is wrong by itself.
PILLOW: dict[str, Any] = {
    "source": {"connection": "couch", "database": "cases", "on_missing": "fail"},
    "transport": [{"connection": "nowhere"}],
}


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any) -> Iterator[Pillowd]:
    """A daemon whose only pillow fails: there is no such database."""
    connections = {"couch": {"type": "couchdb", "url": couch.url}, "nowhere": {"type": "null"}}
    if couch.auth:
        name, password = couch.auth
        connections["couch"]["auth"] = {"type": "basic", "username": name, "password": password}
    pillow = PILLOW | {"source": PILLOW["source"] | {"database": "no-such-database"}}
    with Pillowd(tmp_path, pillows={"cases": pillow}, connections=connections) as daemon:
        yield daemon


def _get_state(pillowd: Pillowd) -> str:
    return str(json.loads(pillowd.command("status", "--json").stdout)["pillows"][0]["state"])


def test_i8_fail_exits_with_1_once_a_pillow_has_failed(pillowd: Pillowd) -> None:
    assert pillowd.command("status", "--fail").returncode == 0  # nothing runs, nothing has failed
    assert pillowd.command("status", "--fail", "--running").returncode == 75
    pillowd.start()
    wait_until(lambda: _get_state(pillowd) == "failed", seconds=30)
    assert pillowd.command("status").returncode == 0
    assert pillowd.command("status", "--fail").returncode == 1
    assert pillowd.command("status", "--fail", "--running", "--json").returncode == 1
    pillowd.stop()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["pipe", "json"])
def test_i7_watch_into_a_pipe_prints_lines_and_ends_quietly(pillowd: Pillowd, options: list[str]) -> None:
    pillowd.start()
    out, err = pillowd.folder / "out", pillowd.folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        child = _watch(pillowd, options, stdout, stderr)
    wait_until(lambda: "failed" in out.read_text(), seconds=30)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) == 0
    assert err.read_text() == ""
    lines = out.read_text().splitlines()
    if not options:
        assert all("cases@couch/no-such-database: " in line for line in lines)
        assert len(lines) == len({line.partition(": ")[2] for line in lines})
    pillowd.stop()


def test_i7_watch_on_a_terminal_ends_quietly(pillowd: Pillowd) -> None:
    ours, its = pty.openpty()
    try:
        child = _watch(pillowd, [], its, its)
        shown = os.read(ours, 4096)
        while b"cases" not in shown:
            shown += os.read(ours, 4096)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=20) == 0
        os.set_blocking(ours, False)
        assert b"Traceback" not in shown + os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(its)


def _watch(pillowd: Pillowd, options: list[str], stdout: Any, stderr: Any) -> subprocess.Popen[bytes]:
    call = [*PILLOWD, "status", "--watch", *options, "--config", str(pillowd.config)]
    return subprocess.Popen(call, stdout=stdout, stderr=stderr)
