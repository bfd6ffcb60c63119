"""Everything in one go, on the same documents and the same servers: `make bench`.

    python -m bench [--docs N] [--rounds N] [--json FILE] [--note]

Every participant runs once in each round, curl among them; the table shows the medians of the rounds.
`--note` writes the figures into `docs/explanation/speed.md`.

PILLOWD_BENCH_COUCHDB_URL points it at a CouchDB server of yours, `http://user:password@host:5984` if it
wants to know who we are; it creates the database `pillowd_bench` there. PILLOWD_BENCH_COUCHDB_PID names
that server's process on this machine (beam.smp), whose CPU counts for the bound; without it there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench import live
from bench.bounds import find_shares
from bench.meter import median_of
from bench.participants import ALL, run_in_turns
from bench.report import describe, format_readings, format_shares
from bench.servers import Servers
from docs.measured import ROOT, write_between_marks

PAGE = ROOT / "docs" / "explanation" / "speed.md"


def main() -> int:
    """Measure, print, and return 0 if every share is as large as required."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all readings there, too")
    parser.add_argument("--note", action="store_true", help="write the figures into the documentation")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-bench-")))
        folder.chmod(0o755)
        servers = Servers(arguments.docs, folder, stack, search=True)
        servers.load()
        readings = run_in_turns(servers, ALL, arguments.rounds)
        described = describe(servers.describe(), readings)
        latencies = live.measure(servers)
    medians = {each[0].name: median_of(each) for each in readings}
    shares = find_shares(medians, os.cpu_count() or 1)
    text = "\n\n".join([described, format_readings(readings), format_shares(shares)])
    print(text)
    told = live.format_latencies(latencies)
    print("\nFrom CouchDB's acknowledgement of a write until it is visible:\n", told, sep="\n")
    if arguments.note:
        write_between_marks(PAGE, text, mark="bench")
        write_between_marks(PAGE, told, mark="latency")
    if arguments.json:
        found = {
            "readings": [[asdict(r) for r in each] for each in readings],
            "shares": [asdict(s) for s in shares],
        }
        arguments.json.write_text(json.dumps(found, indent=1))
    return int(not all(share.is_met for share in shares))


if __name__ == "__main__":
    sys.exit(main())
