"""Where a command makes its calls while a daemon starts, ends, or is another one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from checkpoints import ControlServer
from daemon import desk, state_dir
from daemon.config import load
from daemon.config_models import Config
from daemon.exits import UnreachableError
from tests.clock import FakeClock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "pillowd.yaml").write_text(
        "version: 1\n"
        f"daemon: {{state_dir: {tmp_path}/state, control: {{path: {tmp_path}/control.sock}}}}\n"
        "connections: {couch: {type: couchdb, url: 'http://127.0.0.1:1'}, files: {type: jsonl, path: out}}\n"
        "pillows: {cases: {source: {connection: couch, database: cases}, transport: [{connection: files}]}}\n"
    )
    return load(tmp_path / "pillowd.yaml")


def test_a_daemon_that_just_starts_is_waited_for(config: Config) -> None:
    """It takes the state directory first, and answers a moment later."""
    clock = FakeClock(auto=False)
    with ExitStack() as daemon:
        daemon.enter_context(state_dir.opened(config.daemon.state_dir, clock))
        asked = gevent.spawn(answer, config, clock)
        until_waiting(clock)
        daemon.enter_context(ControlServer(config.daemon.control.path, {"ping": lambda: "started"}))
        clock.advance(0.1)
        assert asked.get(timeout=10) == "started"


def test_a_daemon_that_just_ends_is_waited_for_and_then_the_files_are_taken(config: Config) -> None:
    clock = FakeClock(auto=False)
    with state_dir.opened(config.daemon.state_dir, clock):
        asked = gevent.spawn(answer, config, clock)
        until_waiting(clock)
    clock.advance(0.1)
    assert asked.get(timeout=10) == "pillowd"


def test_who_holds_the_state_and_stays_silent_is_named_after_five_seconds(config: Config) -> None:
    clock = FakeClock()
    with (
        state_dir.opened(config.daemon.state_dir, clock),
        pytest.raises(UnreachableError, match="nobody answers"),
    ):
        answer(config, clock)
    assert sum(clock.waited) == pytest.approx(5, abs=0.2)


def answer(config: Config, clock: FakeClock) -> object:
    with desk.opened(config, clock=clock) as call:
        return call("ping")


def until_waiting(clock: FakeClock) -> None:
    with gevent.Timeout(10):
        while not clock.waited:
            Event().wait(0.005)
