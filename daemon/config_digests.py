"""Digests of a configuration and the functions that it names, kept beside a checkpoint: what changed since?

The digest of what shapes rows is that of what was set, with the defaults of what shapes none, and of the
source's settings only where they are no defaults: so an earlier pillowd's digest mostly stays the same
(not that of a pillow with python functions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from daemon.config.models import PillowConfig, TransportConfig
from pillows.options import Options

_Settings = TypeVar("_Settings", bound=Options)

#: Of a source, what decides which documents have rows.
_SHAPING = ("deletes", "on_filtered", "skip_design")


def digest(value: object) -> str:
    """A short digest of settings, the same for equal ones whatever their order."""
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


def source_digest(settings: PillowConfig) -> str:
    """Of what makes a position meaningless when it changes. Not the URL: a server may move."""
    fields = ("connection", "database", "selector", "doc_ids", "design")
    return digest({field: getattr(settings.source, field) for field in fields})


def pipeline_digest(settings: PillowConfig, code: Sequence[str] = ()) -> str:
    """Of what shapes the rows: change it, and those that were written keep their old form.

    Args:
        settings: of the pillow.
        code: digests of its own functions.
    """
    shaped = settings.model_copy(update={"transport": tuple(map(_shaped, settings.transport))})
    wanted = {"filter", "transform", "attachments", "transport", "outputs"}
    source = {name: getattr(settings.source, name) for name in _SHAPING}
    chosen = {name: value for name, value in source.items() if value != _default(settings.source, name)}
    more = {"source": chosen, "code": list(code)}
    shaping = shaped.model_dump(mode="json", include=wanted)
    return digest(shaping | {name: value for name, value in more.items() if value})


def _shaped(entry: TransportConfig) -> TransportConfig:
    outputs = {name: _with_defaults(options) for name, options in entry.outputs.items()}
    return _with_defaults(entry).model_copy(update={"outputs": outputs})


def _with_defaults(options: _Settings) -> _Settings:
    return options.model_copy(update={name: _default(options, name) for name in options.NOT_SHAPING})


def _default(options: Options, name: str) -> Any:
    return type(options).model_fields[name].get_default(call_default_factory=True)
