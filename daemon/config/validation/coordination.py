"""Check that several daemons can run the pillows, in turn or at the same time."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.config.models import Config
from daemon.config.problems import ConfigProblem
from daemon.config.validation.partitioned import check_partitioned
from pillows.suggest import suggest

#: Type of coordination, and of the connection that it needs -> what that connection does.
_PURPOSES = {"postgres": "hold a lease", "kafka": "hold the changes"}


def check_coordination(config: Config) -> Iterator[ConfigProblem]:
    """Yield the problems of a configuration whose parts are each valid."""
    coordination = config.coordination
    if coordination.type == "none":
        return
    able = sorted(name for name, each in config.connections.items() if each.type == coordination.type)
    if coordination.connection not in able:
        path = ("coordination", "connection")
        remedy = suggest(coordination.connection or "", able, f"connections of type `{coordination.type}`")
        message = f"`{coordination.connection}` cannot {_PURPOSES[coordination.type]}"
        yield config.problem(path, message, remedy)
    if coordination.type == "kafka":
        yield from check_partitioned(config)
    for name, pillow in config.pillows.items():
        for at, entry in pillow.transports:
            for output in entry.outputs.values():
                if remedy := output.describe_takeover_risk():
                    message = "an older state may overwrite a newer one when another daemon takes over"
                    yield config.problem(("pillows", name, *at), message, remedy)
