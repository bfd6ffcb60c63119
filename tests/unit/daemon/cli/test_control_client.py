"""Where a command makes its calls while a daemon starts, ends, or is another one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from daemon.cli import control_client
from daemon.cli.exit_codes import UnreachableError
from daemon.config.load import ConfigErrors, load
from daemon.config.models import Config
from daemon.http.listeners import listen_on_path
from daemon.http.server.server import BoundedServer
from tests.support.clock import FakeClock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "pillowd.yaml").write_text(
        "version: 1\n"
        f"daemon: {{state_dir: {tmp_path}/state, admin: {{listen: 'unix:{tmp_path}/admin.sock'}}}}\n"
        "connections: {couch: {type: couchdb, url: 'http://127.0.0.1:1'}, nowhere: {type: 'null'}}\n"
        "pillows:\n"
        "  cases: {source: {connection: couch, database: cases}, transport: [{connection: nowhere}]}\n"
    )
    return load(tmp_path / "pillowd.yaml")


@contextmanager
def held(config: Config) -> Iterator[None]:
    """Another process has the state directory for as long as the block takes."""
    code = (
        "import sys; from daemon import state_dir; from pillows.clock import SystemClock\n"
        "with state_dir.open_state_dir(__import__('pathlib').Path(sys.argv[1]), SystemClock()):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(config.daemon.state_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


@contextmanager
def answering(config: Config) -> Iterator[None]:
    """A daemon listens for as long as the block takes."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"version": "started"}']

    path = config.daemon.admin.path
    assert path is not None
    server = BoundedServer(listen_on_path(path), application, name="unix")
    server.start()
    try:
        yield
    finally:
        server.stop(1)
        path.unlink()


def test_waits_for_a_starting_daemon(config: Config) -> None:
    """It takes the state directory first, and answers a moment later."""
    clock = FakeClock(auto=False)
    with held(config):
        asked = gevent.spawn(answer, config, clock)
        until_waiting(clock)
        with answering(config):
            clock.advance(0.1)
            assert asked.get(timeout=60) == "started"


def test_waits_for_an_ending_daemon_and_opens_the_files(config: Config) -> None:
    clock = FakeClock(auto=False)
    with held(config):
        asked = gevent.spawn(answer, config, clock)
        until_waiting(clock)
    clock.advance(0.1)
    assert asked.get(timeout=60) == version("pillowd")


def test_silent_holder_of_the_state_is_named_after_five_seconds(config: Config) -> None:
    clock = FakeClock()
    with held(config), pytest.raises(UnreachableError, match="no daemon answers"):
        answer(config, clock)
    assert sum(clock.waited) == pytest.approx(5, abs=0.2)


BROKEN = {
    "a wrong key": lambda text: text + "loging: {}\n",
    "an unset variable": lambda text: text.replace("'http://127.0.0.1:1'", "'${NOT_SET}'"),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_running_daemon_is_reached_although_its_file_has_problems(
    config: Config, change: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pillowd.yaml"
    file.write_text(change(file.read_text()))
    with pytest.raises(ConfigErrors):
        control_client.find_control(file)
    with answering(config), control_client.find_control(file)() as call:
        assert call("get_version")["version"] == "started"
    said = capsys.readouterr().err
    assert f"{file} has 1 problem; the daemon on {tmp_path}/admin.sock still runs" in said


def answer(config: Config, clock: FakeClock) -> object:
    with control_client.open_control(config, clock=clock) as call:
        return call("get_version")["version"]


def until_waiting(clock: FakeClock) -> None:
    with gevent.Timeout(60):
        while not clock.waited:
            Event().wait(0.005)
