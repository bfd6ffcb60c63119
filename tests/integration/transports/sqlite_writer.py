"""A process that writes batches with their checkpoints until it is killed; it goes on where it was."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count

from pillows.transports._columns import TableOutput
from pillows.transports.sqlite import SqliteConnection, SqliteTransport
from tests.targets import KEY, at, batch, document


def main(path: str) -> None:
    docs = TableOutput(table="docs")
    sqlite = SqliteTransport("local", KEY, SqliteConnection(path=path), {"docs": docs})
    checkpoint = sqlite.open().checkpoint or at("0")
    sqlite.claim(checkpoint)
    print("writing", flush=True)
    for number in count(checkpoint.changes + 1):
        checkpoint = replace(checkpoint, changes=number)
        documents = [document(f"d{number}-{n}", 1, {"batch": number}) for n in range(100)]
        sqlite.write(batch(*documents, checkpoint=checkpoint))


if __name__ == "__main__":
    main(sys.argv[1])
