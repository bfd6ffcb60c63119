"""pillowd compared with similar programs, on the same documents and servers: `make bench-peers`.

    python -m bench.peers [--docs N] [--rounds N] [--part-rounds N] [--json FILE] [--note]

Every program copies the documents from CouchDB into an empty PostgreSQL database, once in each round. Those
that need Node.js are left out, with the reason, where it or npm is missing. Then the parts that pillowd has
are compared with the packages that they replace (see `bench.peers.originals`).

`--note` writes the tables into `docs/explanation/speed.md` and the README, and the charts into
`docs/images/`. As for `make bench`, PILLOWD_BENCH_COUCHDB_URL and PILLOWD_BENCH_COUCHDB_PID name a CouchDB
that runs already.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench.meter import Reading
from bench.participants import (
    Participant,
    copy,
    curl,
    follower,
    mirror_once,
    pillowd_postgres,
    run_in_turns,
)
from bench.peers import node, originals, page
from bench.servers import Servers
from tests.servers.process import ServerUnavailable

#: With Python alone; `curl` and `copy` bound what is possible.
PARTICIPANTS: tuple[Participant, ...] = (curl, copy, pillowd_postgres, mirror_once, follower)
ON_NODE: tuple[Participant, ...] = (node.cht_sync, node.couch2pg)


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part-rounds", type=int, default=5, help="of the parts and their originals")
    parser.add_argument("--json", type=Path, help="write all figures there, too")
    parser.add_argument("--note", action="store_true", help="write tables and charts into the documentation")
    given = parser.parse_args()
    participants, left_out = choose()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-bench-")))
        folder.chmod(0o755)
        servers = Servers(given.docs, folder, stack, search=False)
        servers.load()
        readings = run_in_turns(servers, participants, given.rounds)
        parts = originals.compare_with(servers.couch, rounds=given.part_rounds)
        source = servers.describe()
    figures = page.Figures(
        readings=readings,
        parts=parts,
        source=source,
        left_out=left_out,
        cores=os.cpu_count() or 1,
    )
    print(page.format_page(figures))
    if given.json:
        given.json.write_text(json.dumps(to_json(readings, parts), indent=1))
    if given.note:
        page.write(figures)


def choose() -> tuple[Sequence[Participant], str]:
    """Return the participants, and why some are left out."""
    try:
        node.find_modules()
    except ServerUnavailable as unavailable:
        print(f"without {len(ON_NODE)} programs on Node.js: {unavailable}")
        return PARTICIPANTS, f"cht-sync and couch2pg: {unavailable}"
    return (*PARTICIPANTS, *ON_NODE), ""


def to_json(readings: Sequence[Sequence[Reading]], parts: dict[str, dict[str, float]]) -> dict[str, object]:
    """Return all figures."""
    return {"readings": [[asdict(reading) for reading in each] for each in readings], "parts": parts}


if __name__ == "__main__":
    main()
