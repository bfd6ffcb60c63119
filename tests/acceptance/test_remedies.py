"""Every command that a message prints, run as it is printed: while the daemon runs, and on its files.

A command that nobody has entered here is an error: enter it, with what must be true once it has run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from checkpoints import POD, TailKey
from daemon.cli.main import pillowd as command_line
from daemon.cli.main import run_command
from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase
from tests.support.remedies import list_remedies

#: Mentioned, to say where something comes from; nobody is told to run them.
MENTIONED = {"pillowd mirror": "the command that wrote a configuration"}
#: Printed only of what this scene has not; run by that test.
RUN_ELSEWHERE = {
    "rebuild KEY --switch replace-rows": "tests/acceptance/test_rebuild_refused.py",
    "databases KEY": "tests/acceptance/test_several_databases.py",
    "pause KEY": "tests/acceptance/test_several_databases.py",
}
#: Commands of the daemon alone; without one they say so.
NEEDS_DAEMON = {
    "restart KEY",
    "reload",
    "rebuild KEY",
    "rebuild cancel KEY",
    "rebuild drop KEY",
    "rebuild switch KEY",
}


class Scene:
    """A configuration, its daemon, and commands in a shell of the operator's.

    Args:
        pillowd: the configuration.
        capsys: has what a command prints.
    """

    def __init__(self, pillowd: Pillowd, capsys: pytest.CaptureFixture[str]) -> None:
        self.pillowd = pillowd
        self._capsys = capsys

    def run(self, command: str) -> tuple[int, str]:
        """Return the exit code and all that is printed."""
        if "--watch" in command:
            return self._watch(command)
        code = run_command(shlex.split(command)[1:])
        said = self._capsys.readouterr()
        return code, said.out + said.err

    def _watch(self, command: str) -> tuple[int, str]:
        """Run a command that goes on until Ctrl-C, which is pressed once it has named the pillow."""
        said = ""
        with subprocess.Popen(
            [*PILLOWD, *shlex.split(command)[1:]], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout
            while "cases" not in said and (line := child.stdout.readline()):
                said += line
            child.send_signal(signal.SIGINT)
            said += child.stdout.read()
        return child.returncode, said

    def checkpoint(self) -> dict[str, Any]:
        code, said = self.run("pillowd checkpoint get cases --json")
        assert code == 0, said
        found: dict[str, Any] = json.loads(said)
        return found


def prepare_nothing(_: Scene) -> str:
    return ""


def prepare_file(scene: Scene) -> str:
    _, said = scene.run("pillowd checkpoint export cases")
    Path("FILE").write_text(said)
    return ""


def prepare_pause(scene: Scene) -> str:
    return scene.run("pillowd pause cases")[1]


def rebuild(*options: str, until: str) -> Callable[[Scene], str]:
    """Begins a rebuild where a daemon runs, and waits for a state of it."""

    def prepare(scene: Scene) -> str:
        if scene.run("pillowd status --running")[0] == 0:
            code, said = scene.run(shlex.join(["pillowd", "rebuild", "cases", *options]))
            assert code == 0, said
            await_rebuild(scene, until)
        return ""

    return prepare


def await_rebuild(scene: Scene, state: str) -> bool:
    def reached() -> bool:
        code, said = scene.run("pillowd rebuild status cases --json")
        return code == 0 and json.loads(said)["state"] == state

    scene.pillowd.wait_for(reached)
    return True


def finish_rebuild(scene: Scene, _before: str, _said: str) -> bool:
    await_rebuild(scene, "switched")
    assert scene.run("pillowd rebuild drop cases")[0] == 0
    return await_rebuild(scene, "dropped")


def cancel_rebuild(scene: Scene, _before: str, said: str) -> bool:
    if scene.run("pillowd rebuild cancel cases")[0] == 0:  # without a daemon there is none to be cancelled
        await_rebuild(scene, "dropped")
    return "is live" in said


def is_dropped(scene: Scene, _before: str, _said: str) -> bool:
    return await_rebuild(scene, "dropped")


def holds(*words: str) -> Callable[[Scene, str, str], bool]:
    return lambda _scene, _before, said: all(word in said for word in words)


def is_new_epoch(scene: Scene, before: str, said: str) -> bool:
    return bool(scene.checkpoint()["epoch"] > int(before))


def is_new_store(path: str) -> Callable[[Scene, str, str], bool]:
    def check(_scene: Scene, _before: str, _said: str) -> bool:
        with POD(path) as copy:
            return dict(copy) == {"a": 1}

    return check


#: command -> its preparation, and a check of its effect.
EXPECTED: Mapping[str, tuple[Callable[[Scene], str], Callable[[Scene, str, str], bool]]] = {
    "check": (prepare_nothing, holds("the configuration is valid")),
    "checkpoint export KEY": (prepare_nothing, holds('"seq"')),
    "checkpoint history KEY": (prepare_nothing, holds("changes", "seq")),
    "checkpoint import KEY FILE": (prepare_file, holds("cases")),
    "checkpoint reset KEY": (lambda scene: str(scene.checkpoint()["epoch"]), is_new_epoch),
    "checkpoint set KEY SEQ": (prepare_nothing, holds("cases")),
    "dead-letter list KEY": (prepare_nothing, holds("INTEGER column")),
    "dead-letter retry KEY --all": (prepare_nothing, holds("1")),
    "preview KEY": (prepare_nothing, holds("")),
    "rebuild KEY": (prepare_nothing, finish_rebuild),
    "rebuild cancel KEY": (rebuild("--switch", "manual", until="building"), is_dropped),
    "rebuild drop KEY": (rebuild(until="switched"), is_dropped),
    "rebuild status KEY": (rebuild("--switch", "manual", until="building"), cancel_rebuild),
    "rebuild switch KEY": (rebuild("--switch", "manual", until="ready"), finish_rebuild),
    "reload": (prepare_nothing, holds("")),
    "restart KEY": (prepare_nothing, holds("")),
    "resume KEY": (prepare_pause, holds("")),
    "run": (prepare_nothing, holds("")),
    "status": (prepare_nothing, holds("cases")),
    "status --watch": (prepare_nothing, holds("cases")),
    "store check KEY": (prepare_nothing, holds("")),
    "store repair KEY INTO": (prepare_nothing, is_new_store("INTO")),
    "store repair KEY NEW_PATH": (prepare_nothing, is_new_store("NEW_PATH")),
    "verify KEY": (prepare_nothing, holds("cases")),
    "verify KEY --repair": (prepare_nothing, holds("cases")),
}


def to_form(remedy: str, key: TailKey) -> str:
    """Return a command without the names of a pillow."""
    return re.sub(rf"\b{re.escape(str(key))}|\bcases\b", "KEY", remedy.removeprefix("pillowd "))


def test_i5_every_printed_command_is_known() -> None:
    key = TailKey("cases", "couch/cases")
    forms = {to_form(each, key) for each in list_remedies(key) if each not in MENTIONED}
    known = EXPECTED.keys() | RUN_ELSEWHERE.keys()
    assert forms <= known, "enter the new command in EXPECTED"
    assert known <= forms, "no message prints it any more"


def test_i5_every_remedy_does_what_it_says_as_it_is_printed(
    tmp_path: Path,
    couch: Any,
    couch_db: CouchDatabase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    couch_db.bulk([{"_id": "good", "n": 1}, {"_id": "bad", "n": "many"}])
    key = TailKey("cases", f"couch/{couch_db.name}")
    pillow = {
        "source": {"connection": "couch", "database": couch_db.name},
        "transport": [{"connection": "local", "table": "cases", "columns": {"n": "n integer"}}],
    }
    connections = {
        "couch": couchdb(couch.url, couch.auth),
        "local": {"type": "sqlite", "path": str(tmp_path / "target.sqlite")},
    }
    remedies = [
        each
        for each in list_remedies(key)
        if each not in MENTIONED and is_command(each) and to_form(each, key) not in RUN_ELSEWHERE
    ]
    with Pillowd(tmp_path, pillows={"cases": pillow}, connections=connections) as pillowd:
        work = tmp_path / "work"
        work.mkdir()
        monkeypatch.chdir(work)
        monkeypatch.setenv("PILLOWD_CONFIG", str(pillowd.config))
        with POD("cases") as store:
            store["a"] = 1
        scene = Scene(pillowd, capsys)
        log = pillowd.log.open("ab")
        environ = pillowd.environ | {"PILLOWD_CONFIG": str(pillowd.config)}
        pillowd._child = subprocess.Popen([*PILLOWD, "run"], env=environ, stderr=log, cwd=work)

        def live() -> bool:
            status = pillowd.status("cases")
            return (status["state"], status["dead_letters"]) == ("live", 1)

        try:
            pillowd.wait_for(lambda: pillowd.manager.told("READY=1"))
            pillowd.wait_for(live)
            # By the pillow's name or its full key: both are printed, and one of them is enough here.
            for remedy in {to_form(each, key): each for each in remedies}.values():
                run_remedy(scene, remedy, key, runs=True)
                pillowd.wait_for(live)
            assert pillowd.stop() == 0
        finally:
            log.close()
        for remedy in {to_form(each, key): each for each in reversed(remedies)}.values():
            run_remedy(scene, remedy, key, runs=False)


def is_command(remedy: str) -> bool:
    """Whether there is such a command; the unit test of remedies says if not."""
    return remedy.split()[1] in command_line.list_commands(click.Context(command_line))


def run_remedy(scene: Scene, remedy: str, key: TailKey, *, runs: bool) -> None:
    """Run one, and check what it says and does."""
    form = to_form(remedy, key)
    if form == "run":
        return  # that is how the daemon was started
    prepare, check = EXPECTED[form]
    for name in ("INTO", "NEW_PATH"):
        shutil.rmtree(name, ignore_errors=True)
    before = prepare(scene)
    command = remedy
    if "SEQ" in command:
        command = command.replace("SEQ", shlex.quote(str(scene.checkpoint()["seq"])))
    code, said = scene.run(command)
    if form in NEEDS_DAEMON and not runs:
        assert code != 0, said
        assert "run" in said, "it says that no daemon runs"
        return
    assert code == 0, (remedy, said)
    if form == "checkpoint reset KEY" and runs:
        scene.pillowd.wait_for(lambda: check(scene, before, said))
    elif form == "checkpoint reset KEY":
        assert "is at 0" in said, "the next start begins a new pass"
    else:
        assert check(scene, before, said), (remedy, said)
