"""The environment of the processes that the daemon starts."""

from __future__ import annotations

from daemon.process.environment import choose_environment


def test_a_process_does_not_speak_to_the_service_manager():
    assert choose_environment({"HOME": "/", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_PID": "1"}) == {"HOME": "/"}
