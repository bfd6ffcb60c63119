"""Make every transport once, without opening it, to find what its constructor refuses."""

from __future__ import annotations

from contextlib import closing

from daemon.assembly.pipelines import build_transport
from daemon.config.models import Config, TransportConfig
from daemon.config.problems import ConfigProblem
from daemon.tail_lookup import tail_key
from pillows.errors import ConfigError
from pillows.user_code import confine, describe_error


def check_transports(config: Config) -> list[ConfigProblem]:
    """Return a problem for every transport of an enabled pillow that cannot be made."""
    found = []
    for name, pillow in config.pillows.items():
        known = pillow.source.connection in config.connections
        for path, entry in pillow.transports:
            if pillow.enabled and known and entry.connection in config.connections:
                refused = _find_refusal(config, name, entry)
                if refused is not None:
                    found.append(config.problem(("pillows", name, *path), *refused))
    return found


def _find_refusal(config: Config, name: str, entry: TransportConfig) -> tuple[str, str] | None:
    """Return message and remedy; None if the transport can be made."""
    try:
        with closing(build_transport(config, tail_key(name, config.pillows[name]), entry)):
            return None
    except ConfigError as error:
        return str(error.args[0]), error.remedy or "correct it"
    except BaseException as error:  # noqa: BLE001 - a transport of the operator's own may raise anything
        reason = describe_error(confine(error), with_text=True)
        return f"can't be made: {reason}", "correct the transport"
