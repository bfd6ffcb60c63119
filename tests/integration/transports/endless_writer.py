"""A process that writes batches with their checkpoints until it is killed; it goes on where it was.

Args: `jsonl`, `jsonl.gz` or `sqlite`, and the folder or file.
"""

from __future__ import annotations

import sys
from itertools import count

from msgspec.structs import replace

from pillows.transports.base import Transport
from pillows.transports.common.columns import TableOutput
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.transport import JsonlTransport
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, at, batch, document


def transport(kind: str, place: str) -> Transport:
    if kind == "sqlite":
        return SqliteTransport(
            "local", KEY, SqliteConnection(path=place), {"docs": TableOutput(table="docs")}
        )
    docs = JsonlOutput(file="docs.jsonl", gzip=kind == "jsonl.gz")
    return JsonlTransport("files", KEY, JsonlConnection(folder=place), {"docs": docs})


def write(target: Transport) -> None:
    checkpoint = target.open().checkpoint or at("0")
    target.acquire(checkpoint)
    print("writing", flush=True)
    for number in count(checkpoint.changes + 1):
        checkpoint = replace(checkpoint, changes=number)
        documents = [document(f"d{number}-{n}", 1, {"batch": number}) for n in range(100)]
        target.write(batch(*documents, checkpoint=checkpoint))


if __name__ == "__main__":
    write(transport(*sys.argv[1:]))
