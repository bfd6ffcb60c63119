"""A document that nests deeper than filters and transforms can read, from a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillows.couch.options import CouchConnection
from pillows.feed.couch_feed import CouchFeed
from pillows.feed.options import SourceOptions
from pillows.pillow import Pillow
from pillows.runtime.status import State
from pillows.stages.filters import Filter, KeepAll, PythonFilter
from pillows.stages.transforms import PassThrough, PythonTransform, Transform
from tests.servers.couch_client import CouchDatabase
from tests.support.couch_auth import to_auth
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import RunningTail, plan

OUT = ("cases",)
STAGES: dict[str, tuple[Filter, Transform]] = {
    "none": (KeepAll(), PassThrough(OUT)),
    "filter": (PythonFilter(lambda doc: doc["_id"]), PassThrough(OUT)),
    "transform": (KeepAll(), PythonTransform(dict, OUT)),
}


@pytest.mark.parametrize("documents", ["include_docs", "bulk_get"])
@pytest.mark.parametrize("levels", [1500, 9000])
@pytest.mark.parametrize("stage", STAGES)
def test_b1_a_deep_document_is_written_or_one_dead_letter_and_the_pass_ends(
    tmp_path: Path, couch: Any, couch_db: CouchDatabase, stage: str, levels: int, documents: str
) -> None:
    couch_db.bulk([{"_id": f"d{n}", "n": n} for n in range(5)])
    body = b'{"n":' + b"[" * levels + b"]" * levels + b"}"
    couch_db.request("PUT", "/deep", data=body, headers={"Content-Type": "application/json"})
    couch_db.bulk([{"_id": f"e{n}", "n": n} for n in range(5)])
    auth = to_auth(couch.auth)
    make: Callable[[], Any] = lambda: CouchFeed(  # noqa: E731
        CouchConnection(url=couch.url, auth=auth),
        SourceOptions.model_validate(
            {"connection": "couch", "database": couch_db.name, "documents": documents}
        ),
    )
    filter, transform = STAGES[stage]
    target = MemoryTransport()
    pillow = Pillow(name="cases", outputs=OUT, filter=filter, transform=transform)
    parts = plan(tmp_path, make(), target, pillow=pillow, make_feed=make)
    run = RunningTail(parts)
    try:
        run.until(lambda: run.tail.state is State.LIVE, seconds=60)
        saved = run.finish()
        assert saved is not None
        assert saved.pass_done
        failed = {each.id for each in parts.dead_letters.list(KEY)}
        assert failed <= {"deep"}
        stored = {id for id, (_, rows) in target.target["rows"].items() if rows}
        assert stored | failed == {"deep", *(f"{x}{n}" for x in "de" for n in range(5))}
    finally:
        run.kill()
        run.close_stores()
