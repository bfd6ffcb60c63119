"""The setup of a pillow's worker: only those values of the configuration that it needs.

A worker gets no target, so it can neither write nor claim anything. It gets the settings rather than their
file, which may have changed since.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from checkpoints import TailKey
from daemon.config.models import Config, PillowConfig
from daemon.config.plugins import digest_functions
from pillows import registry
from pillows.couch.options import CouchConnection
from pillows.feed.base import DatabaseIdentity
from pillows.options import Options
from pillows.parallel.protocol import to_payload
from pillows.redaction import find_secrets, put_at


class WorkerSetup(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a worker's setup.

    Attributes:
        key: the tail's.
        settings: the pillow's, as JSON, without transports.
        connection: the source's, as JSON, secrets included.
        plugins_path: folders of modules.
        code: digests of the pillow's functions as the daemon has imported them.
        as_json: whether every transport accepts rows as JSON.
        database: the identity of the database that the tail's checkpoint belongs to.
    """

    key: TailKey
    settings: str
    connection: str
    plugins_path: Sequence[str]
    code: Sequence[str]
    as_json: bool
    database: DatabaseIdentity


def make_setup(config: Config, key: TailKey, identity: DatabaseIdentity) -> msgspec.Raw:
    """Return the payload for the workers of a tail.

    Args:
        config: a valid configuration, whose functions are imported.
        key: the tail's key.
        identity: of the database that its checkpoint belongs to.
    """
    settings = config.tails[key.pillow]
    types = [config.connections[entry.connection].type for entry in settings.transport]
    return to_payload(
        WorkerSetup(
            key=key,
            settings=_dump(settings.model_copy(update={"transport": (), "tests": ()})),
            connection=_dump(config.connections[settings.source.connection].options),
            plugins_path=[str(folder) for folder in config.daemon.plugins_path],
            code=digest_functions(settings, config.daemon.plugins_path),
            as_json=all(registry.transport(each).takes_json for each in types),
            database=identity,
        )
    )


def load_settings(text: str) -> PillowConfig:
    """Return a pillow's settings, equal to those in the daemon."""
    return PillowConfig.model_validate_json(text)


def load_connection(text: str) -> CouchConnection:
    """Return the settings of the source's connection, equal to those in the daemon."""
    return CouchConnection.model_validate_json(text)


def _dump(settings: Options) -> str:
    """Return settings as JSON that loads as the same settings."""
    plain = settings.model_dump(mode="json", by_alias=True)
    for path, secret in find_secrets(settings):
        put_at(plain, path, secret.get_secret_value())
    return json.dumps(plain)
