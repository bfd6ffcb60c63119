"""The same documents loaded alone: COPY into PostgreSQL, `_bulk` into Elasticsearch.

Usage: python -m bench.targets copy DSN COUNT | python -m bench.targets bulk URL INDEX COUNT
"""

from __future__ import annotations

import json
import sys
from itertools import islice

import psycopg
import requests

from bench import corpus

BATCH = 1000


def copy(dsn: str, count: int) -> None:
    """One transaction a batch, into a table as pillowd's: id, rev, version, jsonb."""
    lines = corpus.bodies(count)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create table copied (_id text primary key, _rev text, _version bigint, doc jsonb)"
        )
        connection.commit()
        number = 0
        while batch := list(islice(lines, BATCH)):
            with connection.cursor().copy("copy copied from stdin") as stream:
                for body in batch:
                    stream.write(b"%d\t1-a\t1\t%s\n" % (number, body.replace(b"\\", b"\\\\")))
                    number += 1
            connection.commit()


def bulk(url: str, index: str, count: int) -> None:
    """Requests of 1,000 documents with external versions, one after the other."""
    session = requests.Session()
    session.put(f"{url}/{index}", timeout=60).raise_for_status()
    for start in range(0, count, BATCH):
        lines = []
        for number in range(start, min(start + BATCH, count)):
            body = corpus.document(number)
            id = body.pop("_id")
            action = {"_index": index, "_id": id, "version": 1, "version_type": "external"}
            lines += [json.dumps({"index": action}), json.dumps(body, separators=(",", ":"))]
        answer = session.post(
            f"{url}/_bulk?filter_path=errors",
            data="\n".join([*lines, ""]).encode(),
            headers={"content-type": "application/x-ndjson"},
            timeout=300,
        ).json()
        if answer["errors"]:
            raise SystemExit("_bulk had errors")


if __name__ == "__main__":
    if sys.argv[1] == "copy":
        copy(sys.argv[2], int(sys.argv[3]))
    else:
        bulk(sys.argv[2], sys.argv[3], int(sys.argv[4]))
