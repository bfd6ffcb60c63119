"""User code that raises anything at all, in the real daemon."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

SECRET = "078-05-1120"

PLUGIN = """
    import asyncio, gevent
    SECRET = "-".join(["078", "05", "1120"])  # no line of a stack has it
    from pillows import AppendOnlyTransport, Options, OutputOptions, register

    class Unspeakable(ValueError):
        def __str__(self):
            raise SystemExit(SECRET)

    RAISED = dict(
        exit=SystemExit, interrupt=KeyboardInterrupt, kill=gevent.GreenletExit, late=gevent.Timeout,
        cancelled=asyncio.CancelledError, value=ValueError, unspeakable=Unspeakable,
    )

    class Spoil:
        def __init__(self, kind):
            self.kind = kind

        def __call__(self, doc, read=None):
            if read is not None:
                doc = read()
            if isinstance(doc, list):
                return [self(each) for each in doc]
            id = doc["_id"] if isinstance(doc, dict) else doc.id
            if id == "bad":
                raise RAISED[self.kind](SECRET if self.kind != "late" else 1)
            return {"_id": id}

    @register("transport", "own")
    class Own(AppendOnlyTransport):
        class Connection(Options):
            kind: str

        Output = OutputOptions

        def write(self, batch):
            raise RAISED[self.connection.kind](SECRET if self.connection.kind != "late" else 1)
"""
KINDS = ["exit", "interrupt", "kill", "late", "cancelled", "value", "unspeakable"]


def steps(kind: str) -> dict[str, dict[str, Any]]:
    """Each place of a pipeline that calls user code, with code that raises there."""
    call = {"python": "spoiling:Spoil", "args": {"kind": kind}}
    return {
        "filter": {"filter": call},
        "early": {"filter": call | {"needs_document": False}},
        "trigger": {"trigger": call},
        "transform": {"transform": call},
        "chunk": {"transform": call | {"chunk": 10}},
    }


def test_b7_b8_the_daemon_outlives_its_pillows_code(
    tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "spoiling.py").write_text(textwrap.dedent(PLUGIN))
    couch_db.bulk([{"_id": id, "ssn": SECRET} for id in ("a", "bad", "z")])
    source = {"connection": "couch", "database": couch_db.name, "documents": "bulk_get"}
    spoiled = {
        f"{kind}-{place}": {"source": source, "transport": [{"connection": "null"}], **parts}
        for kind in KINDS
        for place, parts in steps(kind).items()
    }
    own = {f"own-{kind}": {"source": source, "transport": [{"connection": f"to-{kind}"}]} for kind in KINDS}
    with Pillowd(
        tmp_path,
        pillows=spoiled | own,
        connections={
            "couch": couchdb(couch.url, couch.auth),
            "null": {"type": "null"},
            **{f"to-{kind}": {"type": "own", "kind": kind} for kind in KINDS},
        },
        daemon={"plugins_path": [str(plugins)], "restart": {"initial": "100ms", "max": "200ms"}},
    ) as pillowd:
        pillowd.start()
        pillowd.wait_for(lambda: len(pillowd.events("dead_letter.added")) == len(spoiled))
        assert {each["id"] for each in pillowd.events("dead_letter.added")} == {"bad"}
        place = f"({plugins}/spoiling.py:26, in __call__)"
        assert all(each["error"].endswith(place) for each in pillowd.events("dead_letter.added")), (
            pillowd.events("dead_letter.added")
        )
        pillowd.wait_for(
            lambda: (
                {each["pillow"].partition("@")[0] for each in pillowd.events("pillow.crashed")} >= own.keys()
            )
        )
        # The retry of a dead letter fails in the same way.
        retried = [f"{kind}-transform" for kind in ("exit", "interrupt", "kill", "late")]
        for name in retried:
            pillowd.command("dead-letter", "retry", name, "--all")
        pillowd.wait_for(lambda: len(pillowd.events("dead_letter.added")) == len(spoiled) + len(retried))
        assert {pillowd.state(name) for name in retried} == {"live"}
        assert pillowd.child.poll() is None
        assert SECRET not in pillowd.log.read_text()
        assert pillowd.stop() == 0
