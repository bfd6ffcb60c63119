"""The environment of the processes that the daemon starts."""

from __future__ import annotations

from collections.abc import Mapping

#: Variables that are meant for the daemon alone.
_NOT_INHERITED = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "PILLOWD_FAILPOINT"})


def choose_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process, given the daemon's."""
    return {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
