"""Root in a folder of somebody else: nothing of it runs, whatever the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from daemon.cli.exit_codes import ExitCode
from daemon.cli.main import pillowd, run_command

#: The user `nobody`.
STRANGER = 65534

CONFIG = """\
version: 1
daemon:
  plugins_path: [plugins]
  state_dir: state
  admin: { listen: "unix:FOLDER/admin.sock" }
  http: { listen: null }
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:1" }
  evil: { type: evil }
pillows:
  cases:
    source: { connection: couch, database: cases }
    filter: { python: "hostile_plugin:keep" }
    transport: [{ connection: evil }]
"""
PLUGIN = "open('FOLDER/it-ran', 'w').close()\n"
ARGUMENTS = {"url": "http://127.0.0.1:1/cases", "target": "sqlite:///copy.sqlite", "file": "file.json"}

#: Command -> options that it needs.
NEEDED = {
    "checkpoint rewind": ["--beginning"],
    "backfill start": ["--prefix", "a"],
    "backfill retry": ["--range", "1"],
}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a file owned by somebody else")


def list_calls(command: click.Command = pillowd, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Yield the arguments of a plain call of every command."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from list_calls(found, (*path, name))
        return
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    yield [*path, *(value for each in arguments for value in _choose(each)), *NEEDED.get(" ".join(path), ())]


def _choose(argument: click.Argument) -> list[str]:
    if isinstance(argument.type, click.Choice):
        return [str(argument.type.choices[0])]
    return [ARGUMENTS.get(argument.name or "", "cases")]


CALLS = list(list_calls())


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, which belongs to somebody else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PILLOWD_CONFIG", raising=False)
    (tmp_path / "pillowd.yaml").write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "plugins").mkdir()
    for name in ("hostile_plugin", "evil"):
        (tmp_path / "plugins" / f"{name}.py").write_text(PLUGIN.replace("FOLDER", str(tmp_path)))
    _give_to(tmp_path, STRANGER)
    yield tmp_path
    for name in ("hostile_plugin", "evil"):
        sys.modules.pop(name, None)


def _give_to(folder: Path, uid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


@as_root
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_d1_nothing_of_a_hostile_folder_runs_as_root(
    hostile: Path, call: list[str], named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    context = click.Context(pillowd)
    has_option = "--config" in _list_options(context, call)
    code = run_command([*call, *(["--config", "pillowd.yaml"] if named and has_option else [])])
    assert not (hostile / "it-ran").exists()
    assert code != ExitCode.OK or not has_option
    if call[0] == "mirror":
        assert code == ExitCode.CONFIG
    if has_option:
        assert code == ExitCode.CONFIG, capsys.readouterr()
        error = capsys.readouterr().err
        assert ("belongs to the user" if named else "no configuration") in error


def _list_options(context: click.Context, call: list[str]) -> list[str]:
    command: click.Command | None = pillowd
    for name in call:
        if not isinstance(command, click.Group):
            break
        command = command.get_command(context, name)
    assert command is not None
    return [name for each in command.params for name in each.opts]


@as_root
@pytest.mark.parametrize("path", ["plugins", "plugins/evil.py"])
def test_d1_a_plugin_that_another_user_owns_is_not_imported(
    hostile: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration is root's own; only the plugin, or its folder, is not."""
    _give_to(hostile, 0)
    os.chown(hostile / path, STRANGER, STRANGER)
    assert run_command(["check", "--config", "pillowd.yaml"]) == ExitCode.CONFIG
    assert not (hostile / "it-ran").exists()
    error = capsys.readouterr().err
    assert f"{hostile / path} belongs to the user nobody" in error
    assert f"`chown root {hostile / path}`" in error


@as_root
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_d1_commands_that_need_no_plugins_import_none(
    hostile: Path, call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _give_to(hostile, 0)
    needing = {"run", "check", "config", "preview", "verify", "backfill"}
    if call[0] in needing or "--config" not in _list_options(click.Context(pillowd), call):
        pytest.skip("needs them, or reads no configuration")
    code = run_command([*call, "--config", "pillowd.yaml"])
    assert code != ExitCode.CONFIG, capsys.readouterr()
    assert not (hostile / "it-ran").exists()
