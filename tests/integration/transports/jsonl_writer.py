"""A process that appends batches with their checkpoints until it is killed; it goes on where it was."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count

from pillows.transports.jsonl import JsonlConnection, JsonlOutput, JsonlTransport
from tests.targets import KEY, at, batch, document


def main(folder: str, gzip: str) -> None:
    docs = JsonlOutput(file="docs.jsonl", gzip=gzip == "True")
    jsonl = JsonlTransport("files", KEY, JsonlConnection(folder=folder), {"docs": docs})
    checkpoint = jsonl.open().checkpoint or at("0")
    jsonl.claim(checkpoint)
    print("writing", flush=True)
    for number in count(checkpoint.changes + 1):
        checkpoint = replace(checkpoint, changes=number)
        documents = [document(f"d{number}-{n}", 1, {"batch": number}) for n in range(100)]
        jsonl.write(batch(*documents, checkpoint=checkpoint))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
