"""Build the pipeline of a pillow: filter, trigger, transforms, transports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checkpoints import TailKey
from daemon.config.models import Config, PillowConfig, TransportConfig
from daemon.config.pipeline import FilterOptions, FunctionOptions, StepOptions
from daemon.config.plugin_modules import add_folders
from daemon.config.plugins import find_function
from daemon.config.several_databases import fill_in_constants, fill_in_outputs, has_outputs_apart
from pillows import registry
from pillows.databases.database_view import DatabaseView
from pillows.pillow import Pillow
from pillows.stages.declarative import DeclarativeStep
from pillows.stages.filters import Filter, JmespathFilter, KeepAll, PythonFilter
from pillows.stages.transforms import Chain, ChunkedTransform, PassThrough, PythonTransform, Transform
from pillows.transports.base import KeyedTransport, Transport


def build_pillow(name: str, settings: PillowConfig, folders: Sequence[Path] = ()) -> Pillow:
    """Build the pipeline of a pillow.

    Args:
        name: the pillow's name.
        settings: its configuration.
        folders: folders of modules that may register filters, triggers and transforms
            (`daemon.plugins_path`).

    Raises:
        ConfigError: a function cannot be found.
    """
    outputs = settings.outputs or (name,)
    return Pillow(
        name=name,
        outputs=outputs,
        filter=_filter(settings.filter, folders),
        transform=_transform(settings.steps, outputs, folders),
        keep_departed=settings.source.on_filtered == "ignore",
        keep_deleted=settings.source.deletes == "ignore",
        max_attachment_bytes=settings.attachments.max_size if settings.attachments.fetch else 0,
        extract=_find_function(settings.trigger, folders) if settings.trigger is not None else None,
    )


def build_pipeline(config: Config, key: TailKey) -> Pillow:
    """Build the pipeline of a tail. With several databases, `{source}` in constants is the database's name.

    Raises:
        ConfigError: a function cannot be found.
    """
    settings = config.tails[key.pillow]
    if settings.source.databases:
        settings = fill_in_constants(settings, key.database)
    return build_pillow(key.pillow, settings, config.daemon.plugins_path)


def build_transports(config: Config, key: TailKey) -> list[Transport]:
    """Build the transports of a tail, in configured order."""
    return [build_transport(config, key, entry) for entry in config.tails[key.pillow].transport]


def build_transport(config: Config, key: TailKey, entry: TransportConfig) -> Transport:
    """Build one transport of a tail.

    Raises:
        ConfigError: the transport refuses its settings.
    """
    add_folders(config.daemon.plugins_path)
    connection, settings = config.connections[entry.connection], config.tails[key.pillow]
    source, outputs = settings.source, entry.outputs
    is_apart = bool(source.databases) and has_outputs_apart(settings)
    if is_apart:
        outputs = fill_in_outputs(outputs, key.database)
    transport = registry.transport(connection.type)(entry.name, key, connection.options, outputs)
    if source.databases and not is_apart:
        transport.share(source.connection)
        if key.source != source.name and isinstance(transport, KeyedTransport):
            return DatabaseView(transport, key)
    elif isinstance(transport, KeyedTransport):
        transport.set_source(config.connections[source.connection].options, key.database)
    return transport


def _filter(settings: FilterOptions | None, folders: Sequence[Path]) -> Filter:
    if settings is None:
        return KeepAll()
    if settings.jmespath is not None:
        return JmespathFilter(settings.jmespath)
    return PythonFilter(_find_function(settings, folders), needs_document=settings.needs_document)


def _find_function(part: FunctionOptions, folders: Sequence[Path]) -> Callable[..., Any]:
    return find_function(part.kind, python=part.python, name=part.name, args=part.args, folders=folders)


def _transform(steps: Sequence[StepOptions], outputs: Sequence[str], folders: Sequence[Path]) -> Transform:
    if not steps:
        return PassThrough(outputs)
    made = [_step(each, folders) for each in steps]
    if len(made) == 1 and not isinstance(made[0], DeclarativeStep):
        if steps[0].chunk is not None:
            return ChunkedTransform(made[0], outputs, chunk=steps[0].chunk)
        return PythonTransform(made[0], outputs)
    return Chain(made, outputs)


def _step(settings: StepOptions, folders: Sequence[Path]) -> DeclarativeStep | Callable[[Any], Any]:
    if settings.is_python:
        return _find_function(settings, folders)
    return DeclarativeStep(**settings.declared)
