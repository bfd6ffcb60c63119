"""The command: what it ends with and how it speaks when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from checkpoints import IntegrityError, RemoteError, StoreLocked, StoreUnavailable
from daemon.cli import main as cli
from daemon.cli.exit_codes import CommandError, NotConfiguredError, UnreachableError
from daemon.cli.main import run_command
from daemon.cli.options import find_config
from daemon.config.problems import ConfigErrors, ConfigProblem, Place
from daemon.errors import UnknownPillowError
from pillows.errors import AccessError, ConfigError, RetryableError

ROOT = Path(__file__).parents[4]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs `pillowd fail`, which raises what it is told."""
    module: Any = ModuleType("tests_failing_command")

    def run(error: BaseException) -> int:
        @click.command()
        def fail() -> None:
            raise error

        module.fail = fail
        return run_command(["fail"])

    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "fail", (f"{module.__name__}:fail", "Fails."))
    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            ConfigErrors(
                [ConfigProblem(place=Place(file="a.yaml", line=3), message="is wrong", remedy="mend it")]
            ),
            78,
        ),
        (ConfigError("no such function", remedy="write one"), 78),
        (NotConfiguredError("no configuration"), 78),
        (UnreachableError("nobody there"), 75),
        (StoreUnavailable("nobody answers"), 75),
        (UnknownPillowError("there is no pillow `x`"), 2),
        (click.UsageError("not like that"), 2),
        (CommandError("it has no checkpoint"), 1),
        (AccessError("401"), 1),
        (RetryableError("503"), 1),
        (StoreLocked("process 7 has it"), 1),
        (IntegrityError("torn"), 1),
        (RemoteError("KeyError: x", kind="KeyError"), 1),
        (PermissionError(13, "Permission denied", "/var/lib/pillowd"), 1),
        (KeyboardInterrupt(), 1),
        (ZeroDivisionError("division by zero"), 1),
        (click.exceptions.Exit(3), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_error_has_its_exit_code_and_none_shows_a_traceback(
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    assert failing(error) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("by design"))
    assert capsys.readouterr().err == (
        "pillowd: unexpected ZeroDivisionError: by design; run `pillowd --debug ...` to see where\n"
    )


def test_debug_shows_the_traceback(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("by design"))
    assert "Traceback" not in capsys.readouterr().err
    assert run_command(["--debug", "fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_no_secret_is_shown_in_an_error(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(RetryableError("GET http://etl:hunter2@couch:5984/ failed"))
    assert "hunter2" not in capsys.readouterr().err


def test_every_command_of_the_table_loads_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.pillowd.list_commands(click.Context(cli.pillowd)):
        assert run_command([name, "--help"]) == 0, name
        assert "Usage: pillowd " in capsys.readouterr().out


def test_help_imports_no_command() -> None:
    """`pillowd --help` answers at once: no client library, no configuration is loaded."""
    code = (
        "import sys, daemon.cli.main as cli; assert cli.run_command(['--help']) == 0\n"
        "heavy = ('requests', 'yaml', 'elasticsearch', 'psycopg', 'rich', 'structlog')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


#: Starts the daemon as far as its imports, shows its help, and prints what it then says on the last line.
IMPORTING = (
    "import sys, time, daemon.__main__\n"
    "sys.argv = ['pillowd', 'run', '--help']\n"
    "try: daemon.__main__.start()\n"
    "except SystemExit: print({})\n"
)

#: What a run needs only sometimes, or never: tables, the API's server, clients of clouds and targets.
SELDOM = "rich pygments flask jinja2 werkzeug ibmcloudant ibm_cloud_sdk_core elasticsearch psycopg sqlite3"


def test_the_daemon_imports_nothing_that_it_may_not_need() -> None:
    """rich alone took 4.6 MB of an idle daemon, and the API's server a tenth of a second of each start."""
    code = (
        IMPORTING.format(f"[name for name in {SELDOM.split()} if name in sys.modules]") + "import rich.table"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.proof
def test_the_daemon_is_imported_in_three_tenths_of_a_second(tmp_path: Path) -> None:
    """The least CPU time of several starts with compiled modules; a failure names the ten slowest modules."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(tmp_path)  # the first start compiles into it

    def start(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *options, "-c", IMPORTING.format("time.process_time()")]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)

    least_seconds = min(float(start().stdout.splitlines()[-1]) for _ in range(20))
    lines = [line.split("|") for line in start("-X", "importtime").stderr.splitlines() if "|" in line]
    modules = sorted(((int(own.split(":")[1]), name.strip()) for own, _, name in lines[1:]), reverse=True)
    slowest = "\n".join(f"{micros:8,} us {name}" for micros, name in modules[:10])
    assert least_seconds < 0.3, f"{least_seconds:.3f} s of CPU; the ten slowest modules:\n{slowest}"


def test_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} pillowd.py --help | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_the_configuration_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("PILLOWD_CONFIG", raising=False)
    monkeypatch.setattr("daemon.cli.options.PLACES", (Path("pillowd.yaml"),))
    with pytest.raises(NotConfiguredError, match=r"pillowd\.yaml"):
        find_config(None)

    (tmp_path / "pillowd.yaml").write_text("version: 1")
    assert find_config(None) == Path("pillowd.yaml")
    monkeypatch.setenv("PILLOWD_CONFIG", "/elsewhere.yaml")
    assert find_config(None) == Path("/elsewhere.yaml")
    assert find_config(Path("given.yaml")) == Path("given.yaml")


def test_store_check_and_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from checkpoints import POD

    path, copy = tmp_path / "store", tmp_path / "copy"
    with POD(path) as pod:
        pod.update({f"k{n}": n for n in range(5)})
    assert run_command(["store", "check", str(path)]) == 0
    file = next(each for each in path.iterdir() if each.suffix == ".json")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:2], "torn\n", *lines[3:]]))
    capsys.readouterr()

    assert run_command(["store", "check", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"{file.name} line 3" in out
    assert "pillowd store repair" in out
    assert run_command(["store", "repair", str(path), str(copy)]) == 0
    assert run_command(["store", "check", str(copy)]) == 0
    assert run_command(["store", "check", str(tmp_path / "nothing")]) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ('[7, "g1A"]', [7, "g1A"]),
        ("7-g1A", "7-g1A"),
        ('"7"', "7"),
        ("1.5", "1.5"),
    ],
)
def test_token_is_parsed_as_typed(text: str, value: Any) -> None:
    from daemon.cli.legacy_checkpoints import parse_token

    assert parse_token(text) == value


@pytest.mark.parametrize(("word", "hint"), [("statsu", " Did you mean `status`?"), ("xyzzy", "\n")])
def test_an_unknown_command_is_answered_with_a_similar_one(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([word]) == 2
    assert f"No such command `{word}`.{hint}" in capsys.readouterr().err
