"""The daemon as a process: signals, systemd, exit codes, control; on a real source and SQLite."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size
from tests.support.systemd_unit import COMMAND, read_values

#: How many starts are interrupted within the first three seconds.
STARTS = size(ci=3, proof=30)

#: Plugins of the tests: a transport that ends the process, transforms that take their time or hog the hub.
PLUGINS = """
from pathlib import Path
import gevent
from pillows import AppendOnlyTransport, Options, OutputOptions, register

@register("transport", "ending")
class Ending(AppendOnlyTransport):
    Connection, Output = Options, OutputOptions

    def write(self, batch):
        raise SystemExit(3)

def slow(document):
    Path("slow").touch()
    gevent.sleep(3600)
    return document

def hogging(document):
    Path("hogging").touch()
    while not Path("enough").exists():
        pass
    return document
"""


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Callable[..., Pillowd]]:
    """Builds daemons with the pillow `cases` on `couch_db`; settings override."""
    built: list[Pillowd] = []
    (tmp_path / "plugins.py").write_text(PLUGINS)

    def build(*, pillows: dict[str, Any] | None = None, **settings: Any) -> Pillowd:
        default = {"cases": {"source": {"connection": "couch", "database": couch_db.name}}}
        chosen = {
            name: {"transport": [{"connection": "tables", "table": name}], **pillow}
            for name, pillow in (default if pillows is None else pillows).items()
        }
        source = couchdb(couch.url, couch.auth)
        connections = {"couch": source, "tables": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")}}
        connections |= settings.pop("connections", {})
        daemon = {"plugins_path": [str(tmp_path)], **settings.pop("daemon", {})}
        folder = tmp_path / f"pillowd{len(built)}"
        folder.mkdir()
        built.append(Pillowd(folder, pillows=chosen, connections=connections, daemon=daemon, **settings))
        return built[-1]

    yield build
    for each in built:
        each.__exit__()


def rows(pillowd: Pillowd, table: str = "cases") -> int:
    path = pillowd.folder.parent / "t.sqlite"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(path) as database:
            (count,) = database.execute(f"select count(*) from {table}").fetchone()
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()
    return int(count)


def source(couch_db: CouchDatabase, **settings: Any) -> dict[str, Any]:
    return {"connection": "couch", "database": couch_db.name, **settings}


# --- a life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_checkpoints_and_exits_0(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase, number: int
) -> None:
    couch_db.bulk([{"_id": f"d{n}"} for n in range(300)])
    daemon = pillowd().start()
    daemon.wait_for(lambda: rows(daemon) == 300)
    daemon.wait_for(lambda: daemon.manager.told("STATUS=1 pillow: 1 live"))
    began = time.monotonic()
    daemon.signal(number)

    assert daemon.ended() == 0
    assert time.monotonic() - began < size(ci=30, proof=5)
    assert daemon.events("daemon.stopped")[0]["cut"] == []
    saved = daemon.ask("checkpoint", "get", "cases")
    assert saved["changes"] == 300
    lines = daemon.manager.lines()
    assert lines.index("READY=1") < lines.index("STOPPING=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines)


@pytest.mark.parametrize("seconds", [each * 3 / STARTS for each in range(STARTS)])
def test_f7_sigterm_during_the_start_ends_in_order(pillowd: Callable[..., Pillowd], seconds: float) -> None:
    daemon = pillowd().start(ready=False)
    daemon.wait_for(lambda: catches_sigterm(daemon.child.pid))  # before, Python itself is starting
    time.sleep(seconds)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0
    assert time.monotonic() - began < 5


def catches_sigterm(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM, as proc(5) tells."""
    (mask,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_second_signal_cuts_the_drain_short_with_exit_1(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    couch_db.put("d", {})
    daemon = pillowd(pillows={"cases": {"source": source(couch_db), "transform": {"python": "plugins:slow"}}})
    daemon.start()
    daemon.wait_for((daemon.folder / "slow").exists)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for(lambda: daemon.events("daemon.stopping"))
    time.sleep(0.5)
    assert daemon.child.poll() is None, "it waits for what is in flight"

    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 1
    (killed,) = daemon.events("pillow.killed")
    assert killed["reason"] == "a second signal"
    assert daemon.events("daemon.stopped")[0]["cut"] == [f"cases@couch/{couch_db.name}"]


def test_a_drain_that_takes_too_long_is_cut_with_exit_1(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    couch_db.put("d", {})
    daemon = pillowd(
        pillows={"cases": {"source": source(couch_db), "transform": {"python": "plugins:slow"}}},
        daemon={"shutdown_timeout": "1s"},
    ).start()
    daemon.wait_for((daemon.folder / "slow").exists)
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 1


def test_a_failed_pillow_neither_stops_the_daemon_nor_another_pillow(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    couch_db.put("d", {})
    daemon = pillowd(
        pillows={
            "cases": {"source": source(couch_db)},
            "bad": {"source": source(couch_db) | {"database": "not-there", "on_missing": "fail"}},
        }
    ).start()
    daemon.wait_for(lambda: (daemon.state("bad"), daemon.state("cases")) == ("failed", "live"))
    assert daemon.stop() == 0


def test_a_pillow_that_crashes_is_restarted_alone(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    """A transport that calls sys.exit() is the worst of crashes: it ends neither daemon nor neighbour."""
    couch_db.put("d", {})
    daemon = pillowd(
        pillows={
            "cases": {"source": source(couch_db)},
            "bad": {"source": source(couch_db), "transport": [{"connection": "ending"}]},
        },
        connections={"ending": {"type": "ending"}},
        daemon={"restart": {"initial": "100ms", "max_restarts": 2}},
    ).start()
    daemon.wait_for(lambda: (daemon.state("bad"), daemon.state("cases")) == ("failed", "live"))
    bad, good = daemon.status("bad"), daemon.status("cases")

    assert (bad["restarts"], good["restarts"], good["state"]) == (2, 0, "live")
    assert "restarted too often" in bad["reason"]
    assert "in write" in daemon.events("pillow.crashed")[0]["stack"]
    assert daemon.stop() == 0


def test_only_the_chosen_pillows_run(pillowd: Callable[..., Pillowd], couch_db: CouchDatabase) -> None:
    daemon = pillowd(
        pillows={name: {"source": source(couch_db)} for name in ("one", "two", "three")},
    ).start("--pillow-key", "two", "--pillow-key", f"three@couch/{couch_db.name}")
    assert {each["pillow"] for each in daemon.ask("status")["pillows"]} == {"two", "three"}
    assert daemon.stop() == 0


def test_the_watchdog_is_fed_while_the_hub_turns_and_only_then(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    """A pillow that computes blocks the hub: no WATCHDOG=1 comes meanwhile, where one was due each second."""
    daemon = pillowd(
        pillows={"cases": {"source": source(couch_db), "transform": {"python": "plugins:hogging"}}}
    )
    daemon.start(environ={"WATCHDOG_USEC": "2000000"})
    daemon.wait_for(lambda: daemon.manager.lines().count("WATCHDOG=1") >= 3)
    couch_db.put("d", {})
    daemon.wait_for((daemon.folder / "hogging").exists)
    asleep = daemon.manager.lines().count("WATCHDOG=1")
    time.sleep(3)
    assert daemon.manager.lines().count("WATCHDOG=1") == asleep
    (daemon.folder / "enough").touch()
    daemon.wait_for(lambda: daemon.manager.lines().count("WATCHDOG=1") >= asleep + 3)
    assert daemon.stop() == 0


def test_three_idle_pillows_take_less_than_100_mb(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    daemon = pillowd(pillows={name: {"source": source(couch_db)} for name in ("one", "two", "three")}).start()
    daemon.wait_for(lambda: {daemon.state(name) for name in ("one", "two", "three")} == {"live"})
    assert psutil.Process(daemon.child.pid).memory_info().rss < 100_000_000
    assert daemon.stop() == 0


# --- the unit


def test_the_unit_s_commands_work_as_they_are_written(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    """The commands get the folders, the credential and the notify socket as from systemd."""
    daemon = pillowd(sections={"logging": {"level": "info"}})
    folder = daemon.folder
    (folder / "credentials").mkdir()
    (folder / "credentials" / "couchdb_password").write_text("secret")
    written = daemon.config.read_text().replace(str(folder / "state"), "${STATE_DIRECTORY}/x")
    daemon.config.write_text(written)
    systemd = {
        "STATE_DIRECTORY": str(folder / "state"),
        "RUNTIME_DIRECTORY": str(folder / "run"),
        "CREDENTIALS_DIRECTORY": str(folder / "credentials"),
        "WATCHDOG_USEC": "30000000",
    }

    def command(line: str) -> list[str]:
        words = shlex.split(line.replace("/etc/pillowd/pillowd.yaml", str(daemon.config)))
        return [*PILLOWD, *words[1:]] if words[0] == COMMAND else words

    def run(line: str) -> int:
        environ = daemon.environ | systemd
        return subprocess.run(
            command(line), env=environ, timeout=60, check=False, capture_output=True
        ).returncode

    assert [run(line) for line in read_values("ExecStartPre")] == [0]
    with daemon.log.open("ab") as log:
        child = subprocess.Popen(
            command(read_values("ExecStart")[0]), env=daemon.environ | systemd, stderr=log
        )
    daemon._child = child
    daemon.wait_for(lambda: daemon.manager.told("READY=1"))
    daemon.wait_for(lambda: daemon.manager.told("WATCHDOG=1"))
    assert daemon.stop() == 0
    assert daemon.manager.lines()[-1].startswith(("STATUS=", "STOPPING=1", "EXTEND_"))
    assert (folder / "state" / "x" / "checkpoints").is_dir()


# --- the command


def test_pause_resume_and_reset_over_the_control_socket(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    couch_db.bulk([{"_id": f"d{n}"} for n in range(10)])
    daemon = pillowd().start()
    daemon.wait_for(lambda: daemon.state("cases") == "live")
    assert daemon.ask("pause", "cases")["state"] == "paused"
    assert daemon.stop() == 0
    assert daemon.state("cases") == "paused", "said from the files, too"

    couch_db.put("later", {})
    daemon.start()
    assert daemon.state("cases") == "paused", "over a restart"
    assert daemon.ask("resume", "cases")["state"] in {"catching-up", "live"}
    daemon.wait_for(lambda: rows(daemon) == 11)

    before = daemon.ask("checkpoint", "get", "cases")
    edited = daemon.ask("checkpoint", "reset", "cases")
    assert (edited["seq"], edited["generation"]) == (0, before["generation"] + 1)
    daemon.wait_for(lambda: daemon.status("cases")["epoch"] == before["epoch"] + 1)
    daemon.wait_for(lambda: daemon.status("cases")["pass_number"] is None)
    after = daemon.ask("checkpoint", "get", "cases")
    assert after["epoch"] == before["epoch"] + 1
    assert rows(daemon) == 11
    assert daemon.stop() == 0


def test_checkpoints_are_edited_on_the_files_when_no_daemon_runs(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    couch_db.bulk([{"_id": f"d{n}"} for n in range(10)])
    daemon = pillowd().start()
    daemon.wait_for(lambda: rows(daemon) == 10)
    assert daemon.stop() == 0
    there = daemon.ask("checkpoint", "get", "cases")

    exported = daemon.folder / "exported.json"
    exported.write_text(daemon.command("checkpoint", "export", "cases").stdout)
    assert daemon.ask("checkpoint", "rewind", "cases", "--beginning")["seq"] == 0
    assert daemon.ask("checkpoint", "set", "cases", str(there["seq"]))["seq"] == there["seq"]
    assert daemon.ask("checkpoint", "import", "cases", str(exported))["generation"] == 3
    daemon.start()
    daemon.wait_for(lambda: daemon.state("cases") == "live")
    assert rows(daemon) == 10
    assert daemon.stop() == 0


def test_a_command_that_finds_the_state_locked_but_no_socket_says_so(
    pillowd: Callable[..., Pillowd],
) -> None:
    daemon = pillowd().start()
    os.rename(daemon.folder / "admin.sock", daemon.folder / "moved.sock")
    done = daemon.command("status")
    os.rename(daemon.folder / "moved.sock", daemon.folder / "admin.sock")

    assert done.returncode == 75
    assert f"process {daemon.child.pid}" in done.stderr
    assert "no daemon answers on" in done.stderr
    assert "Traceback" not in done.stderr
    assert daemon.stop() == 0


def test_a_second_daemon_on_the_same_state_is_refused_with_the_pid(pillowd: Callable[..., Pillowd]) -> None:
    daemon = pillowd().start()
    done = daemon.command("run")
    assert done.returncode == 1
    assert f"process {daemon.child.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    assert daemon.stop() == 0


def test_a_status_is_watched_until_interrupted(pillowd: Callable[..., Pillowd]) -> None:
    daemon = pillowd().start()
    words = [*PILLOWD, "status", "--watch", "--json", "--config", str(daemon.config)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=daemon.environ) as watch:
        assert watch.stdout is not None
        looks = [json.loads(watch.stdout.readline()) for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=60) == 0
    assert [look["pid"] for look in looks] == [daemon.child.pid] * 2
    assert daemon.stop() == 0


# --- exit codes


def test_an_invalid_configuration_is_exit_78_for_every_command(pillowd: Callable[..., Pillowd]) -> None:
    daemon = pillowd()
    daemon.config.write_text(daemon.config.read_text().replace("pillows:", "pilows:"))
    for command in (["check"], ["run"], ["status"], ["config", "show"], ["checkpoint", "get", "cases"]):
        done = daemon.command(*command)
        assert done.returncode == 78, command
        assert "did you mean `pillows`?" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_configuration_is_exit_78_and_says_where_it_was_looked_for(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PILLOWD_CONFIG"}
    done = subprocess.run(
        [*PILLOWD, "status"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert "/etc/pillowd/pillowd.yaml" in done.stderr


def test_a_function_that_cannot_be_imported_is_exit_78_with_its_line(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    bad = {"cases": {"source": source(couch_db), "transform": {"python": "plugins:fast"}}}
    daemon = pillowd(pillows=bad)
    done = daemon.command("check")
    assert done.returncode == 78
    assert "pillows.cases.transform.python" in done.stderr
    assert daemon.command("run").returncode == 78


def test_check_connect_tells_apart_what_is_there_and_what_is_not(
    pillowd: Callable[..., Pillowd], couch_db: CouchDatabase
) -> None:
    daemon = pillowd()
    assert daemon.command("check").returncode == 0
    assert daemon.command("check", "--connect").returncode == 0
    assert not (daemon.folder.parent / "t.sqlite").exists(), "it changes nothing"

    daemon.config.write_text(re.sub(r"url: \S+", "url: http://127.0.0.1:9", daemon.config.read_text()))
    away = daemon.command("check", "--connect", "--json")
    assert away.returncode == 75
    results = {each["place"]: each["result"] for each in json.loads(away.stdout)["connections"]}
    assert results == {
        f"cases: source couch/{couch_db.name}": "unreachable",
        "cases: transport tables": "ok",
    }


def test_usage_errors_are_exit_2(pillowd: Callable[..., Pillowd]) -> None:
    daemon = pillowd()
    assert daemon.command("run", "--all", "--pillow-key", "cases").returncode == 2
    assert daemon.command("run", "--pillow-key", "casse").returncode == 2
    unknown = daemon.command("pause", "casse")
    assert unknown.returncode == 2
    assert "did you mean `cases`?" in unknown.stderr
    assert daemon.command("nonsense").returncode == 2
