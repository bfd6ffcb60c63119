"""The systemd unit: what it promises is measured by systemd's own tool, and its commands exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click import Context

from daemon.cli.main import pillowd
from tests.support.systemd_unit import COMMAND, UNIT, read_values


def seconds(name: str) -> float:
    return float(read_values(name)[0].removesuffix("s"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_exposure_is_at_most_1_5() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    rated = re.search(r"Overall exposure level for pillowd.service: (\d+\.\d+)", done.stdout)
    assert rated is not None, done.stdout + done.stderr
    assert float(rated[1]) <= 1.5
    assert done.returncode == 0


def test_its_commands_are_ours_and_parse() -> None:
    commands = [
        value.split()
        for name in ("ExecStartPre", "ExecStart", "ExecReload")
        for value in read_values(name)
        if value.startswith(COMMAND)
    ]
    assert [words[1] for words in commands] == ["check", "run", "reload"]
    for words in commands:
        command = pillowd.get_command(Context(pillowd), words[1])
        assert command is not None
        parsed = command.make_context(words[1], words[2:], resilient_parsing=False)
        assert parsed.params["config_path"] == Path("/etc/pillowd/pillowd.yaml")


def test_i2_systemctl_reload_waits_for_the_answer_and_fails_with_the_mistakes() -> None:
    """A HUP would look successful whatever the daemon makes of it."""
    (command,) = read_values("ExecReload")
    assert command == f"{COMMAND} reload --config /etc/pillowd/pillowd.yaml"


def test_it_is_stopped_later_than_the_drain_may_take() -> None:
    from daemon.config.models import DaemonOptions

    assert seconds("TimeoutStopSec") > DaemonOptions().shutdown_timeout


def test_a_stop_is_told_to_the_daemon_alone() -> None:
    """Worker processes that get the signal too would die, and be started again during the drain."""
    assert read_values("KillMode") == ["mixed"]


def test_a_wrong_configuration_is_not_started_again() -> None:
    from daemon.cli.exit_codes import ExitCode

    assert read_values("RestartPreventExitStatus") == [str(int(ExitCode.CONFIG))]
    assert read_values("Type") == ["notify"]


def test_the_folders_are_the_configuration_s_defaults() -> None:
    from daemon.config.default_folders import SYSTEM_RUNTIME, SYSTEM_STATE

    assert [f"/var/lib/{read_values('StateDirectory')[0]}", f"/run/{read_values('RuntimeDirectory')[0]}"] == [
        str(SYSTEM_STATE),
        str(SYSTEM_RUNTIME),
    ]


def test_i14_the_installer_has_the_configuration_checked_before_the_start() -> None:
    text = (Path(__file__).parents[2] / "etc" / "install.sh").read_text()
    assert text.index("check --connect") < text.index("systemctl enable --now")
