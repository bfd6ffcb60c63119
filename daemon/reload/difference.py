"""Decide which tails differ between two configurations, and which keys need a restart of the daemon. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from checkpoints import TailKey
from checkpoints.files.blocking import run_blocking
from daemon.config.models import Config, ConnectionConfig, PillowConfig, VerifyOptions
from daemon.config.plugin_modules import is_plugin
from daemon.config.plugins import list_modules
from daemon.config.problems import ConfigProblem, KeyPath
from daemon.config.validation.output_ownership import get_addresses, get_target
from pillows import registry
from pillows.progress.checkpointer import CheckpointOptions

#: Keys that are read once, when the daemon starts: files and sockets that it keeps open.
_NEED_RESTART: tuple[KeyPath, ...] = (
    ("daemon", "state_dir"),
    ("daemon", "http"),
    ("daemon", "admin"),
    ("logging", "format"),
    ("coordination",),
)

#: Settings of connections that name a file which is read when a tail starts, and not again. A `token_file` is
#: read with every request.
_READ_ONCE = ("ca_bundle", "client_cert", "client_key")
#: The beginning of such a file by which it is compared; a bundle of all authorities has a quarter of that.
_COMPARED_BYTES = 1024 * 1024

#: Settings of a pillow that a running tail does not use.
_NOT_USED: Mapping[str, Any] = {"tests": (), "verify": VerifyOptions(), "rebuild": "ask", "next": None}

#: An address of an output; see `OutputOptions.addresses`.
Address = tuple[str, ...]


class TailParts(Struct, frozen=True, kw_only=True):
    """Everything that a tail is built from. Tails of equal parts behave alike.

    Settings are compared by value, secrets included: a rotated password changes every tail that uses it.

    Attributes:
        settings: the pillow's, without those that a running tail does not use.
        connections: name -> settings, of its source and its transports.
        files: connection -> setting -> digest of the file that it names, if it is read when the tail starts.
        checkpoints: when it saves its position.
        plugins: identifies the loaded modules of `daemon.plugins_path`; 0 for a tail that uses none.
    """

    settings: PillowConfig
    connections: Mapping[str, ConnectionConfig]
    files: Mapping[str, Mapping[str, str]]
    checkpoints: CheckpointOptions
    plugins: int

    @property
    def places(self) -> frozenset[Address]:
        """The addresses that the tail writes to."""
        found: set[Address] = set()
        for entry in self.settings.transport:
            connection = self.connections[entry.connection].options
            for name, output in entry.outputs.items():
                written = get_target(output, connection, name).values()
                found |= get_addresses(output, connection, (entry.connection, *written))
        return frozenset(found)


class Difference(Struct, frozen=True, kw_only=True):
    """The tails to start, restart, stop and leave alone, in configured order.

    Attributes:
        added: tails to start.
        changed: tails to stop, and to start again from the new configuration.
        removed: tails to stop. Their checkpoints stay.
        unchanged: tails to leave alone.
    """

    added: Sequence[TailKey]
    changed: Sequence[TailKey]
    removed: Sequence[TailKey]
    unchanged: Sequence[TailKey]


def list_parts(config: Config, keys: Sequence[TailKey], *, plugins: int) -> dict[TailKey, TailParts]:
    """Return the parts of tails.

    Args:
        config: a valid configuration, whose functions are imported.
        keys: the tails.
        plugins: identifies the loaded modules of plugins.

    Raises:
        ConfigError: a function can't be found.
    """
    files = run_blocking(_digest_files, config.connections)
    return {key: _get_parts(config, config.tails[key.pillow], files, plugins) for key in keys}


def compare(old: Mapping[TailKey, TailParts], new: Mapping[TailKey, TailParts]) -> Difference:
    """Return which tails to start, restart, stop and leave alone."""
    common = [key for key in new if key in old]
    return Difference(
        added=[key for key in new if key not in old],
        changed=[key for key in common if old[key] != new[key]],
        removed=[key for key in old if key not in new],
        unchanged=[key for key in common if old[key] == new[key]],
    )


def overlap(first: frozenset[Address], second: frozenset[Address]) -> bool:
    """Return whether two tails write to a common place: an address, or one within the other."""
    return any(a[: len(b)] == b[: len(a)] for a in first for b in second)


def find_restart_needs(old: Config, new: Config) -> Iterator[ConfigProblem]:
    """Yield a problem for each changed setting that a running daemon cannot take up."""
    for path in _NEED_RESTART:
        was, becomes = _get(old, path), _get(new, path)
        if was != becomes:
            shown = _show(was), _show(becomes)
            what = "its settings have changed"
            if shown[0] != shown[1]:
                what = f"it is {shown[0]} now, and would become {shown[1]}"
            yield new.problem(
                path, f"needs a restart: {what}", "restart the daemon, or change it back to reload the rest"
            )


def _digest_files(connections: Mapping[str, ConnectionConfig]) -> dict[str, dict[str, str]]:
    return {
        name: {
            setting: _digest_file(path)
            for setting in _READ_ONCE
            if isinstance(path := getattr(connection.options, setting, None), Path)
        }
        for name, connection in connections.items()
    }


def _digest_file(path: Path) -> str:
    """Return the digest of a file; "" if it can't be read, which the tail reports when it starts."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_COMPARED_BYTES)).hexdigest()
    except OSError:
        return ""


def _get_parts(
    config: Config, settings: PillowConfig, files: Mapping[str, Mapping[str, str]], plugins: int
) -> TailParts:
    used = {settings.source.connection, *(entry.connection for entry in settings.transport)}
    connections = {name: config.connections[name] for name in sorted(used)}
    modules = list_modules(settings, config.daemon.plugins_path)
    modules += [registry.transport(each.type).__module__ for each in connections.values()]
    return TailParts(
        settings=settings.model_copy(update=_NOT_USED),
        connections=connections,
        files={name: files[name] for name in connections},
        checkpoints=config.checkpoints,
        plugins=plugins if any(map(is_plugin, modules)) else 0,
    )


def _get(config: Config, path: KeyPath) -> Any:
    value: Any = config
    for name in path:
        value = getattr(value, str(name))
    return value


def _show(value: Any) -> str:
    return str(getattr(value, "listen", value))
