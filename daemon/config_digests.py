"""Digests of a pillow's configuration, saved in its checkpoint to notice changes.

The digest of the pipeline leaves out settings that do not shape rows, and settings of the source that
have their defaults: so a pillowd with more settings computes the same digest (except of a pillow with
Python functions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from daemon.config.models import Config, PillowConfig, TransportConfig
from pillows.options import Options

_Settings = TypeVar("_Settings", bound=Options)

#: Settings of a source that decide which documents have rows.
_SHAPING = ("deletes", "on_filtered", "skip_design")


def digest(value: object) -> str:
    """Return a short digest of settings, independent of their order."""
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


def digest_config(config: Config) -> str:
    """Return the digest of a whole configuration, in which secrets count by their masks only."""
    return digest(config.model_dump(mode="json", by_alias=True))


def source_digest(settings: PillowConfig) -> str:
    """Return the digest of the settings that a position depends on. Not the URL: a server may move."""
    fields = ("connection", "database", "selector", "doc_ids", "design")
    values = {field: getattr(settings.source, field) for field in fields}
    if settings.source.databases:  # not the patterns: a position is that of a database
        values["database"] = "*"
    if settings.source.filter_function is not None:  # older digests have no such fields
        values |= {name: getattr(settings.source, name) for name in ("filter_function", "filter_arguments")}
    return digest(values)


def pipeline_digest(settings: PillowConfig, code: Sequence[str] = ()) -> str:
    """Return the digest of everything that shapes rows. After a change, old rows keep their old form.

    Args:
        settings: the pillow's configuration.
        code: digests of its Python functions.
    """
    shaped = settings.model_copy(update={"transport": tuple(map(_shaped, settings.transport))})
    wanted = {"filter", "transform", "attachments", "transport", "outputs"}
    source = {name: getattr(settings.source, name) for name in _SHAPING}
    chosen = {name: value for name, value in source.items() if value != _default(settings.source, name)}
    more = {"source": chosen, "code": list(code)}
    if settings.trigger is not None:  # older digests have no such field
        wanted.add("trigger")
    shaping = shaped.model_dump(mode="json", include=wanted)
    for entry, dumped in zip(shaped.transport, shaping["transport"], strict=True):
        for name, options in entry.outputs.items():
            _leave_out_new(options, dumped["outputs"][name])
    return digest(shaping | {name: value for name, value in more.items() if value})


def digest_settings(settings: PillowConfig) -> dict[str, str]:
    """Return a digest for each key of a pillow that shapes its rows, as `pipeline_digest` does for all.

    Its Python functions do not count: a new version of them comes to one machine after the other.
    """
    shaped = settings.model_copy(update={"transport": tuple(map(_shaped, settings.transport))})
    wanted = {"filter", "transform", "trigger", "attachments", "transport", "outputs"}
    found = {name: digest(value) for name, value in shaped.model_dump(mode="json", include=wanted).items()}
    shaping = {name: getattr(settings.source, name) for name in _SHAPING}
    return found | {"source": digest([source_digest(settings), shaping])}


def _shaped(entry: TransportConfig) -> TransportConfig:
    outputs = {name: _with_defaults(options) for name, options in entry.outputs.items()}
    return _with_defaults(entry).model_copy(update={"outputs": outputs})


def _with_defaults(options: _Settings) -> _Settings:
    return options.model_copy(update={name: _default(options, name) for name in options.NOT_SHAPING})


def _leave_out_new(options: Options, dumped: dict[str, Any]) -> None:
    for name in options.NEW_IN_DIGESTS:
        if getattr(options, name) == _default(options, name):
            del dumped[name]


def _default(options: Options, name: str) -> Any:
    return type(options).model_fields[name].get_default(call_default_factory=True)
