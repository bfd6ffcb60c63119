"""A cluster as a mirror's target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from pillows.errors import ConfigError
from pillows.redaction import redact_address
from pillows.transports.common.mirroring import (
    TARGET_PASSWORD,
    Endpoint,
    MirrorSupport,
    get_host,
    split_url,
    to_login,
)

#: Where both products listen unless the target names a port.
_PORT = 9200


class SearchMirror(MirrorSupport):
    """An index of any documents."""

    #: The type of the connection.
    TYPE: ClassVar[str]
    #: Of the index: a value that does not fit its field's type is kept but not indexed.
    SETTINGS: ClassVar[Mapping[str, Any]] = {"index.mapping.ignore_malformed": True}

    def parse(self, text: str) -> Endpoint:
        """Return the server; see `MirrorSupport.parse`."""
        parts = split_url(text.removeprefix(f"{self.TYPE}+"))
        if not parts.hostname:
            raise ConfigError(
                f"{redact_address(text)} does not name a server.",
                remedy=f"write {self.FORM}; the index is named by --name",
            )
        host = get_host(parts) if parts.port else f"{get_host(parts)}:{_PORT}"
        url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        connection: dict[str, Any] = {"type": self.TYPE, "hosts": [url]}
        auth, secrets = to_login(parts, TARGET_PASSWORD)
        if auth:
            connection["auth"] = auth
        return Endpoint(connection=connection, secrets=secrets)

    def trust(self, endpoint: Endpoint, ca_bundle: Path) -> Endpoint:
        """Return the endpoint with the certificates; see `MirrorSupport.trust`."""
        return replace(endpoint, connection={**endpoint.connection, "ca_bundle": str(ca_bundle)})

    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return an index of that name for documents of any shape."""
        return {
            "index": name,
            "mapping": {"date_detection": False},
            "settings": self.SETTINGS,
            "on_misfit": "unindexed",
        }
