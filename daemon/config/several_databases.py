"""Settings of a pillow on several databases that name the database: `{source}` in outputs and constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daemon.config.models import PillowConfig
from daemon.config.pipeline import StepOptions
from pillows.databases.names import PLACEHOLDER, fill_in, fill_in_name
from pillows.options import OutputOptions

#: Longest name of a table, in characters; an index may have more.
LONGEST_NAME = 63


def list_placed(options: OutputOptions) -> Iterator[str]:
    """Yield the keys of an output's place that hold `{source}`."""
    for key, name in _address_fields(options):
        if PLACEHOLDER in str(getattr(options, name) or ""):
            yield key


def has_outputs_apart(settings: PillowConfig) -> bool:
    """Return whether each database has outputs of its own."""
    return any(
        True
        for entry in settings.transport
        for options in entry.outputs.values()
        for _ in list_placed(options)
    )


def fill_in_outputs(outputs: Mapping[str, OutputOptions], database: str) -> Mapping[str, OutputOptions]:
    """Return the outputs of one database."""
    return {name: _fill_in_output(options, database) for name, options in outputs.items()}


def fill_in_constants(settings: PillowConfig, database: str) -> PillowConfig:
    """Return a pillow's settings with the database's name in the constants of its transform."""
    transform = settings.transform
    if isinstance(transform, tuple):
        filled: Any = tuple(_fill_in_step(step, database) for step in transform)
    else:
        filled = None if transform is None else _fill_in_step(transform, database)
    return settings if filled == transform else settings.model_copy(update={"transform": filled})


def _fill_in_step(step: StepOptions, database: str) -> StepOptions:
    constants = {
        name: fill_in(value, database) if isinstance(value, str) else value
        for name, value in step.set.items()
    }
    return step if constants == step.set else step.model_copy(update={"set": constants})


def _fill_in_output(options: OutputOptions, database: str) -> OutputOptions:
    changes = {
        name: fill_in_name(str(getattr(options, name)), database, longest=LONGEST_NAME)
        for _, name in _address_fields(options)
        if PLACEHOLDER in str(getattr(options, name) or "")
    }
    return options.model_copy(update=changes) if changes else options


def _address_fields(options: OutputOptions) -> Iterator[tuple[str, str]]:
    """Yield the key and the field of each part of an output's place."""
    for name, field in type(options).model_fields.items():
        if (key := field.alias or name) in options.ADDRESS_KEYS:
            yield key, name
