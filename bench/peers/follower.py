"""A program as a user would write it: ibmcloudant's ChangesFollower into PostgreSQL with psycopg.

Usage: python -m bench.peers.follower DATABASE_URL DSN
"""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

import psycopg
from ibm_cloud_sdk_core.authenticators import BasicAuthenticator, NoAuthAuthenticator
from ibmcloudant import ChangesFollower
from ibmcloudant.cloudant_v1 import CloudantV1

from tests.servers.source import source

BATCH = 1000
UPSERT = (
    "insert into follower values (%s, %s, %s) "
    "on conflict (id) do update set rev = excluded.rev, doc = excluded.doc"
)


def main(database_url: str, dsn: str) -> None:
    database = source(database_url)
    parts = urlsplit(database.url)
    service = CloudantV1(
        authenticator=BasicAuthenticator(*database.auth) if database.auth else NoAuthAuthenticator()
    )
    service.set_service_url(f"{parts.scheme}://{parts.netloc}")
    follower = ChangesFollower(service, db=parts.path.strip("/"), include_docs=True, since="0")
    with psycopg.connect(dsn) as connection:
        connection.execute("create table follower (id text primary key, rev text, doc jsonb)")
        connection.commit()
        rows = []
        for change in follower.start_one_off():
            document = change.doc.to_dict()
            rows.append((change.id, document["_rev"], json.dumps(document)))
            if len(rows) == BATCH:
                write(connection, rows)
                rows = []
        write(connection, rows)


def write(connection: psycopg.Connection, rows: list[tuple[str, str, str]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(UPSERT, rows)
    connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
