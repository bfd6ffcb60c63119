"""Settings of a pillow on several databases that name the database: `{source}` in outputs and constants."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config.models import PillowConfig
from daemon.config.pipeline import StepOptions
from pillows.databases.names import PLACEHOLDER, fill_in, fill_in_name
from pillows.options import OutputOptions


def has_place_apart(options: OutputOptions) -> bool:
    """Return whether an output has a place of its own for each database."""
    return bool(_list_placed(options))


def has_outputs_apart(settings: PillowConfig) -> bool:
    """Return whether each database has outputs of its own."""
    return any(has_place_apart(options) for entry in settings.transport for options in entry.outputs.values())


def fill_in_outputs(outputs: Mapping[str, OutputOptions], database: str) -> Mapping[str, OutputOptions]:
    """Return the outputs of one database."""
    return {name: _fill_in_output(options, database) for name, options in outputs.items()}


def fill_in_constants(settings: PillowConfig, database: str) -> PillowConfig:
    """Return a pillow's settings with the database's name in the constants of its transform."""
    filled = tuple(_fill_in_step(step, database) for step in settings.steps)
    return settings if filled == settings.steps else settings.model_copy(update={"transform": filled})


def _fill_in_step(step: StepOptions, database: str) -> StepOptions:
    constants = {
        name: fill_in(value, database) if isinstance(value, str) else value
        for name, value in step.set.items()
    }
    return step if constants == step.set else step.model_copy(update={"set": constants})


def _fill_in_output(options: OutputOptions, database: str) -> OutputOptions:
    changes = {name: fill_in_name(str(getattr(options, name)), database) for name in _list_placed(options)}
    return options.model_copy(update=changes) if changes else options


def _list_placed(options: OutputOptions) -> list[str]:
    """Return the fields of an output's place that hold `{source}`."""
    return [
        name
        for name, field in type(options).model_fields.items()
        if (field.alias or name) in options.ADDRESS_KEYS and PLACEHOLDER in str(getattr(options, name) or "")
    ]
