"""Settings of a CouchDB database that is written to."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pillows.couch.options import DatabaseName
from pillows.options import OutputOptions
from pillows.transports.common.addresses import to_server_address


class CouchdbOutput(OutputOptions):
    """One database.

    Attributes:
        database: its name.
        mode: `upsert` writes rows, `replicate` copies documents with their revisions.
        create: create the database when it is missing.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("database",)
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"create"})

    database: DatabaseName
    mode: Literal["upsert", "replicate"] = "upsert"
    create: bool = True

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the database's address for each URL of the server; see `OutputOptions.addresses`."""
        return frozenset(("couchdb", to_server_address(url), self.database) for url in connection.urls)
