"""The content of the golden files, and how to write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from checkpoints import Checkpoint, ConfigDigest, Seq, TailKey
from daemon.assembly.pipelines import build_transports
from daemon.config.load import load
from daemon.config.models import Config
from daemon.config_digests import pipeline_digest, source_digest
from daemon.control.tails import to_json
from daemon.mirror.config import parse_mirror, prepare
from daemon.state_dir import StateDir, open_state_dir
from daemon.verification.comparisons import Comparison
from pillows.dead_letters.dead_letter import DeadLetter, ErrorOptions
from pillows.runtime.startup import outputs_digest
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

FOLDER = Path(__file__).parent
STATE, DIGESTS, STATUS, MIRROR = (
    FOLDER / "state",
    FOLDER / "digests.json",
    FOLDER / "status.json",
    FOLDER / "mirror",
)
KEY, PAUSED = TailKey("cases", "couch/cases"), TailKey("visits", "couch-eu/org/visits")
#: A mirror's folder is named after this one, which is the same on every machine.
MIRRORS = Path("/var/lib/pillowd-golden")

CHECKPOINTS = {
    KEY: Checkpoint(
        seq=Seq.of("5000-g1AAAACbeJzLYWBgYMpgTmHgz8tPSTV0MDQy1zMAQsMcoARTIkOS_P___7MymBMZc4EC7MmmBknJ"),
        edits=2,
        epoch=3,
        pass_epoch=3,
        first_pass=True,
        instance_start_time="1700000000",
        server_uuid="6f2b5a1c",
        purge_seq="4-g1AAAAH3",
        marked=True,
        digest=ConfigDigest(source="0123456789abcdef", outputs="sqlite", pipeline="fedcba9876543210"),
        pipeline_changed_at=1_700_000_000.5,
        changes=123_456,
        saved_at=1_700_000_100.25,
    ),
    PAUSED: Checkpoint(seq=Seq.of([12, "g1AAAA"]), changes=7, saved_at=1_700_000_200.0),
}
DEAD_LETTERS = [
    DeadLetter(
        tail=KEY,
        transport="warehouse",
        id="case-ä",
        rev="3-cc",
        leaf_version=6,
        seq="17-g1AA",
        stage="transport",
        error="invalid input syntax for type integer",
    ),
    DeadLetter(
        tail=KEY, transport="", id="case-2", rev="1-aa", leaf_version=1, stage="transform", error="ValueError"
    ),
]
STATUSES = [
    TailStatus(pillow="cases", source="couch/cases", state=State.STARTING),
    TailStatus(
        pillow="visits",
        source="couch-eu/org/visits",
        state=State.BACKING_OFF,
        reason="warehouse: connection refused",
        seq="12-g1AAAA",
        changes=7,
        pending=5,
        lag_seconds=12.5,
        changes_per_second=2.5,
        seconds_to_go=2.0,
        epoch=3,
        pass_number=3,
        dead_letters=2,
        restarts=1,
        last_byte_age_seconds=0.5,
        checkpoint_age_seconds=1.5,
        pipeline_changed_at=1_700_000_000.5,
    ),
]
COMPARISONS = [
    None,
    Comparison(
        at=1_700_000_300.5,
        differences={"warehouse": {"missing": 2, "stale": 0, "extra": 1}},
        repaired=4,
        reason="it took longer than 12 hours",
    ),
]
#: One pillow for each type of transport.
CONFIG = """\
version: 1
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:9" }
  sqlite: { type: sqlite, path: target.sqlite }
  postgres: { type: postgres, dsn: "host=127.0.0.1 port=9" }
  elasticsearch: { type: elasticsearch, hosts: ["http://127.0.0.1:9"] }
  jsonl: { type: jsonl, folder: lines }
  couchdb: { type: couchdb, url: "http://127.0.0.1:10" }
  webhook: { type: webhook, url: "http://127.0.0.1:9" }
pillows:
  sqlite:
    source: { connection: couch, database: cases }
    filter: { jmespath: "doc.type == 'case'" }
    transform: { pick: [a, b] }
    transport: [{ connection: sqlite, table: cases, columns: { a: "a text" } }]
  postgres:
    source:
      { connection: couch, database: cases, selector: { type: case }, on_filtered: ignore, deletes: ignore }
    outputs: [case, visit]
    transform: { rows: { visit: { each: visits, fields: { day: day } } } }
    transport:
      - connection: postgres
        outputs:
          case: { table: cases, columns: { a: "a text" } }
          visit: { table: visits, many: true, columns: { day: "day date" } }
  elasticsearch:
    source: { connection: couch, database: cases, doc_ids: [a, b], on_filtered: ignore, deletes: ignore }
    transport: [{ connection: elasticsearch, index: cases, mapping: { dynamic: false } }]
  jsonl:
    source: { connection: couch, database: cases, deletes: ignore }
    transport: [{ connection: jsonl, file: cases.jsonl }]
  couchdb:
    source: { connection: couch, database: cases }
    transport: [{ connection: couchdb, database: copy, mode: replicate }]
  webhook:
    source: { connection: couch, database: cases }
    transport: [{ connection: webhook }]
"""


@contextmanager
def opened_state(path: Path) -> Iterator[StateDir]:
    """Open a state directory."""
    with open_state_dir(path, FakeClock(auto=False)) as state:
        yield state


def write_state(path: Path) -> None:
    """Write a state directory as a daemon leaves it."""
    with opened_state(path) as state:
        for key, checkpoint in CHECKPOINTS.items():
            state.store.save(key, replace(checkpoint, edits=0))
            for _ in range(checkpoint.edits):
                state.store.edit(key, _as_it_is)
            state.store.save(key, checkpoint)
        state.dead_letters.add(DEAD_LETTERS, ErrorOptions(), "fedcba9876543210")
        state.dead_letters.sync(KEY)
        state.pauses.add(PAUSED)


def _as_it_is(stored: Checkpoint | None) -> Checkpoint:
    assert stored is not None
    return stored


def make_digests(folder: Path) -> dict[str, dict[str, str]]:
    """Return pillow -> the digests of its configuration."""
    path = folder / "pillowd.yaml"
    path.write_text(CONFIG)
    config = load(path, {"HOME": "/nonexistent"})
    return {name: _digests_of(config, name) for name in config.pillows}


def _digests_of(config: Config, name: str) -> dict[str, str]:
    settings = config.pillows[name]
    key = TailKey(name, "couch/cases")
    return {
        "source": source_digest(settings),
        "outputs": outputs_digest(build_transports(config, key)),
        "pipeline": pipeline_digest(settings),
    }


def make_statuses() -> list[dict[str, Any]]:
    """Return the JSON of `pillowd status` for the tails."""
    found: list[dict[str, Any]] = json.loads(
        json.dumps([to_json(*shown) for shown in zip(STATUSES, COMPARISONS, strict=True)])
    )
    return found


def write_mirror(state_dir: Path) -> Path:
    """Write a mirror's configuration; return its folder."""
    mirror = parse_mirror(
        "https://etl:s3cret@couch.example/org%2Fcases",
        "sqlite:////srv/target.sqlite",
        name=None,
        state_dir=state_dir,
    )
    prepare(mirror, lambda _: {"n": "n integer", "doc": "@ jsonb"}, {})
    return mirror.folder


def write_all() -> None:
    """Write every golden file."""
    for folder in (STATE, MIRROR):
        shutil.rmtree(folder, ignore_errors=True)
    write_state(STATE)
    for lock in STATE.rglob(".lock"):
        lock.unlink()
    for name, value in ((STATUS, make_statuses()), (DIGESTS, make_digests(FOLDER))):
        name.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    (FOLDER / "pillowd.yaml").unlink()
    shutil.copytree(write_mirror(MIRRORS), MIRROR)
    shutil.rmtree(MIRRORS)
