"""Run the chaos test from the command line: `python -m tests.chaos --cycles 300 --seed 7`."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import gevent
from gevent.util import print_run_info

from docs.measured import write_between_marks
from tests.chaos import note
from tests.chaos.run import Chaos
from tests.chaos.score import ChaosError
from tests.chaos.stage import Stage
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.postgres import Postgres


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--minutes", type=float, default=1e9, help="end after this many minutes")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--note", action="store_true", help="write the run into the documentation")
    parser.add_argument("--keep", action="store_true", help="keep the daemon's folder, with its log")
    given = parser.parse_args()
    gevent.signal_handler(signal.SIGUSR1, print_run_info)  # shows where a run hangs
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pillowd-chaos-"))
    print(f"seed {given.seed}, {folder}", flush=True)
    with CouchDB(admin="chaos:monkey") as couch, Postgres() as postgres, Elasticsearch() as elasticsearch:
        stage = Stage(
            folder,
            seed=given.seed,
            couch=couch,
            postgres=postgres,
            elasticsearch=elasticsearch,
            documents=given.documents,
        )
        with stage:
            chaos = Chaos(stage, given.seed, say=lambda text: print(text, flush=True))
            red = ""
            try:
                chaos.run(given.cycles, minutes=given.minutes)
            except ChaosError as error:
                red = str(error)
            except Exception as error:  # noqa: BLE001 - print the table of an incomplete run too
                traceback.print_exc()
                red = f"the harness broke: {type(error).__name__}: {error}"
            seconds = time.monotonic() - began
            text = note.format_table(chaos.score, chaos.plan, seed=given.seed, seconds=seconds, red=red)
    print(text, flush=True)
    if given.note:
        write_between_marks(note.PAGE, text)
        if not red:
            write_between_marks(note.README, note.format_claim(chaos.score), mark="chaos")
    if red:
        print(f"RED, seed {given.seed}, {folder}", flush=True)
        return 1
    if not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
