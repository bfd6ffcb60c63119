"""Check that several daemons can run the pillows in turn."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.config.models import Config
from daemon.config.problems import ConfigProblem
from pillows.suggest import suggest

#: The type of a connection that can hold the lease.
LEASE_TYPE = "postgres"


def check_coordination(config: Config) -> Iterator[ConfigProblem]:
    """Yield the problems of a configuration whose parts are right by themselves."""
    coordination = config.coordination
    if coordination.type == "none":
        return
    able = sorted(name for name, each in config.connections.items() if each.type == LEASE_TYPE)
    if coordination.connection not in able:
        path = ("coordination", "connection")
        remedy = suggest(coordination.connection or "", able, f"connections of type `{LEASE_TYPE}`")
        yield config.problem(path, f"`{coordination.connection}` cannot hold a lease", remedy)
    for name, pillow in config.pillows.items():
        for at, entry in pillow.transports:
            for output in entry.outputs.values():
                if remedy := output.describe_takeover_risk():
                    message = "an older state may overwrite a newer one when another daemon takes over"
                    yield config.problem(("pillows", name, *at), message, remedy)
