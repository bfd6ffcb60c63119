"""`python -m tests.chaos --cycles 300 --seed 7`: the whole run, and the note it writes."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - after the patch
import secrets  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.util import print_run_info  # noqa: E402

from tests.chaos import note  # noqa: E402
from tests.chaos.run import Chaos, ChaosError  # noqa: E402
from tests.chaos.stage import Stage  # noqa: E402
from tests.servers.couch_peer import CouchPeer  # noqa: E402
from tests.servers.elasticsearch import Elasticsearch  # noqa: E402
from tests.servers.postgres import Postgres  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--minutes", type=float, default=1e9, help="end when so many have passed")
    parser.add_argument("--documents", type=int, default=30_000)
    parser.add_argument("--note", type=Path, help="write the run's table into this page")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    gevent.signal_handler(signal.SIGUSR1, print_run_info)  # where does it hang?
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pillowd-chaos-"))
    with CouchPeer(admin="chaos:monkey") as couch, Postgres() as postgres, Elasticsearch() as elasticsearch:
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
            try:
                chaos.run(given.cycles, minutes=given.minutes)
            except ChaosError as error:
                print(f"RED, seed {given.seed}, {folder}: {error}", flush=True)
                return 1
            text = note.table(chaos.score, seed=given.seed, seconds=time.monotonic() - began)
    print(text)
    if given.note:
        note.put(given.note, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
