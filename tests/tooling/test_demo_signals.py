"""A demo that is told to stop leaves nothing behind, and stops its daemon in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.demo import data
from tests.demo.story import Demo
from tests.servers.couch_client import CouchDatabase
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

#: The demo with a server and a daemon that only tell what is done to them.
STORY = """\
import sys, time
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from rich.console import Console
from tests.demo.story import Demo, DemoError

folder = Path({folder!r})

class Quick(Demo):
    @contextmanager
    def _source(self):
        self.environment["PILLOWD_DEMO_COUCHDB"] = "http://127.0.0.1:9"
        self.environment["PILLOWD_DEMO_PASSWORD"] = "x"
        try:
            yield None
        finally:
            (folder / "server-closed").touch()

    def _catch_up(self, title, expected):
        {wait}

    def _load(self): pass
    def _rows(self): return 0
    def _change(self, **_): return 0
    def _expect_equal(self, what): pass
    def _crash(self): pass
    def _edit_a_few(self): pass

sys.executable = {daemon!r}
try:
    Quick(folder, Console()).run(serve=True)
except DemoError as failure:
    sys.exit(str(failure))
"""
DAEMON = """\
#!/bin/sh
trap 'echo interrupted > "{folder}/cut"; exit 1' INT
trap 'touch "{folder}/stopped"; exit 0' TERM
echo $$ > "{folder}/new" && mv "{folder}/new" "{folder}/pid"
while :; do sleep 0.05; done
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts the demo as the leader of a group, and waits until its daemon runs."""
    started: list[subprocess.Popen[str]] = []
    daemon = tmp_path / "daemon"
    daemon.write_text(DAEMON.format(folder=tmp_path))
    daemon.chmod(0o755)

    def start(wait: str) -> subprocess.Popen[str]:
        code = STORY.format(folder=str(tmp_path), wait=wait, daemon=str(daemon))
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        wait_until(lambda: (tmp_path / "pid").exists() or process.poll() is not None)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
    if (tmp_path / "pid").exists() and _runs(tmp_path):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def _runs(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def _serves(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        if "Serving until Ctrl-C" in line:
            return
    pytest.fail("it does not serve")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_whoever_ends_a_serving_demo_ends_its_daemon_in_order(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path, number: int
) -> None:
    """The signal goes to the whole group, as a terminal sends it."""
    demo = start("pass")
    _serves(demo)
    os.killpg(demo.pid, number)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert (tmp_path / "stopped").exists()
    assert not (tmp_path / "cut").exists()
    assert not _runs(tmp_path)
    assert (tmp_path / "server-closed").exists()


def test_a_demo_that_is_stopped_half_way_says_so(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    demo = start("time.sleep(3600)")
    demo.send_signal(signal.SIGTERM)
    said, _ = demo.communicate(timeout=60)
    assert (demo.returncode, "The demo was interrupted." in said) == (1, True), said
    assert not _runs(tmp_path)
    assert (tmp_path / "server-closed").exists()


def test_the_demo_goes_on_when_its_database_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Demo(tmp_path, Console(quiet=True))
    demo.couch = CouchDatabase("http://127.0.0.1:9", "clinic")
    demo.present = [{"_id": "a", "_rev": "1-a"}]
    monkeypatch.setattr(data, "edits", lambda *_, **__: [{"_id": "a", "_rev": "1-a"}])
    waits: Iterator[Any] = iter(
        [subprocess.TimeoutExpired("pillowd", 1), subprocess.TimeoutExpired("pillowd", 1), 0]
    )

    class Daemon:
        def wait(self, timeout: float) -> int:
            result = next(waits)
            if isinstance(result, Exception):
                raise result
            return int(result)

    demo.daemon = Daemon()  # type: ignore[assignment]
    demo._serve()
    assert next(waits, "all waited for") == "all waited for"
