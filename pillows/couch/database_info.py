"""Read the identity of a server and of a database, through ibmcloudant's client (`CouchClient.cloudant`)."""

from __future__ import annotations

import msgspec

from pillows.couch.client import SMALL_ANSWER_BYTES, CouchClient
from pillows.couch.http.response import ActivityMonitor


class ServerInfo(msgspec.Struct, frozen=True):
    """Part of `GET /`.

    Attributes:
        uuid: of the server; nodes of a cluster may have different ones.
        vendor: holds the `name` of the product.
    """

    uuid: str | None = None
    vendor: dict[str, object] = {}


class ClusterInfo(msgspec.Struct, frozen=True):
    """How a database is spread over a cluster; one node has it too.

    Attributes:
        n: copies of each document.
    """

    n: int | None = None


class DatabaseInfo(msgspec.Struct, frozen=True):
    """Part of `GET /{db}`.

    Attributes:
        doc_count: number of documents that are not deleted; None if the server does not report it.
        doc_del_count: number of deleted documents; None if the server does not report it.
        cluster: None if the server does not report it.
        instance_start_time: when the database was created; see `DatabaseIdentity`.
        purge_seq: moves with every purge.
        update_seq: the position after the last change.
    """

    doc_count: int | None = None
    doc_del_count: int | None = None
    cluster: ClusterInfo | None = None
    instance_start_time: str | int | None = None
    purge_seq: str | int | None = None
    update_seq: str | int | list[object] | None = None

    @property
    def copies(self) -> int | None:
        """Copies of each document; None if the server does not report it."""
        return self.cluster.n if self.cluster is not None else None


def get_server_info(couch: CouchClient, *, activity: ActivityMonitor | None = None) -> ServerInfo:
    """Return the answer to `GET /`.

    Raises:
        PillowError: as `CouchClient.json`.
    """
    response = couch.cloudant.get_server_information(stream=True)
    return couch.read_json(response.get_result(), ServerInfo, max_bytes=SMALL_ANSWER_BYTES, activity=activity)


def get_database_info(
    couch: CouchClient, database: str, *, activity: ActivityMonitor | None = None
) -> DatabaseInfo:
    """Return the answer to `GET /{db}`.

    Raises:
        MissingError: the database does not exist.
        PillowError: as `CouchClient.json`.
    """
    response = couch.cloudant.get_database_information(db=database, stream=True)
    return couch.read_json(
        response.get_result(), DatabaseInfo, max_bytes=SMALL_ANSWER_BYTES, activity=activity
    )
