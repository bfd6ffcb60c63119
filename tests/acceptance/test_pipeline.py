"""Filters, transforms and transports of the operator's own, end to end: routing, attachments, plug-ins."""

from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import requests

from tests.acceptance import stores
from tests.acceptance.world import World, live

ROUTES = """
    def routed(doc):
        return {doc["to"]: doc, "visits": doc.get("visits", [])} if doc.get("to") else None
"""


def write_module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


# --- moving between outputs


def test_documents_that_move_between_outputs_leave_nothing_behind(world: World) -> None:
    """Two tables with a child table, and two indices: in each a document stands in one place, or in none."""
    write_module(world.folder, "routes", ROUTES)
    pillow = world.pillow("routed", outputs=["red", "blue", "visits"], transform={"python": "routes:routed"})
    tables = {"red": {"table": "red"}, "blue": {"table": "blue"}, "visits": {"table": "visits", "many": True}}
    plain = {"mapping": {"dynamic": False}}
    pillow["transport"] = [
        {"connection": "postgres", "outputs": tables},
        {
            "connection": "elasticsearch",
            "outputs": {name: {"index": world.alias(name), **plain} for name in ("red", "blue")},
        },
    ]
    steps: list[dict[str, tuple[str | None, int]]] = [
        dict.fromkeys("abcdef", ("red", 2)),
        {"a": ("blue", 3), "b": ("blue", 0), "c": (None, 1), "f": ("blue", 1)},
        {"a": ("red", 1), "b": (None, 0), "c": ("blue", 2), "f": ("red", 1)},
    ]
    truth: dict[str, tuple[str | None, int]] = {}

    def everywhere() -> bool:
        return [_in_postgres(world), _in_elasticsearch(world)] == [
            {id: (to, visits) for id, (to, visits) in truth.items() if to},
            {id: to for id, (to, _) in truth.items() if to},
        ]

    def write(step: dict[str, tuple[str | None, int]]) -> None:
        for id, (to, visits) in step.items():
            world.couch.put(id, {"to": to, "visits": [{"n": n} for n in range(visits)]})
        truth.update(step)

    write(steps[0])
    daemon = world.pillowd({"routed": pillow}).start()
    daemon.wait_for(lambda: live(daemon))  # tables and indices are there from then on
    daemon.wait_for(everywhere)
    write(steps[1])
    world.couch.delete("d")
    del truth["d"]
    daemon.wait_for(everywhere)
    daemon.child.kill()
    daemon.child.wait()
    write(steps[2])  # while nobody looks
    daemon.start()
    daemon.wait_for(everywhere)
    assert daemon.stop() == 0


def _in_postgres(world: World) -> dict[str, tuple[str, int]]:
    """Id -> its table and how many visits it has; fails where a document stands in both."""
    with psycopg.connect(world.postgres_dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # a document may move meanwhile
        if reader.execute("select to_regclass('visits')").fetchone() == (None,):
            return {}
        found = [
            (id, table)
            for table in ("red", "blue")
            for (id,) in reader.execute(f"select _id from {table}".encode())
        ]
        counts = dict(reader.execute("select _id, count(*) from visits group by _id").fetchall())
    assert len(dict(found)) == len(found), found
    assert counts.keys() <= dict(found).keys(), "a child outlived its parent"
    return {id: (table, counts.get(id, 0)) for id, table in found}


def _in_elasticsearch(world: World) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("red", "blue"):
        if not requests.head(f"{world.elasticsearch_url}/_alias/{world.alias(name)}", timeout=60).ok:
            continue
        for id in stores.elasticsearch(world.elasticsearch_url, world.alias(name)):
            # The two are written one after the other, so for a moment it may be in both.
            found[id] = name if id not in found else "both"
    return found


# --- attachments


def test_attachments_are_stubs_or_come_along_up_to_a_limit(world: World) -> None:
    """A document is changed and deleted later, and another one has no attachments."""
    small, large = b"hello \x00 world", bytes(range(256)) * 20
    attach(world, "doc", {"small.bin": small, "b/ü.bin": b"", "large.bin": large})
    world.couch.put("plain", n=1)
    pillows = {
        "stubs": world.pillow("stubs", "postgres"),
        "whole": world.pillow("whole", "postgres", attachments={"fetch": True, "max_size": "1KiB"}),
    }
    daemon = world.pillowd(pillows).start()
    daemon.wait_for(lambda: live(daemon))
    stubs, whole = _attachments(world, "stubs")["doc"], _attachments(world, "whole")["doc"]

    assert stubs == world.couch.get("doc")["_attachments"]
    assert all(stub["stub"] and "data" not in stub for stub in stubs.values())
    assert (content(whole["small.bin"]), content(whole["b/ü.bin"])) == (small, b"")
    assert whole["large.bin"] == stubs["large.bin"], "too large: it stays a stub, and is never held"
    assert "plain" not in _attachments(world, "whole")

    attach(world, "doc", {"small.bin": b"changed"})
    attach(world, "late", {"one.txt": b"one"})
    daemon.wait_for(lambda: _content(world, "late", "one.txt") == b"one")
    daemon.wait_for(lambda: _content(world, "doc", "small.bin") == b"changed")
    world.couch.delete("doc")
    daemon.wait_for(lambda: "doc" not in _attachments(world, "whole"))
    assert daemon.stop() == 0


def attach(world: World, id: str, files: dict[str, bytes]) -> None:
    """Puts attachments to a document, one revision for each."""
    for name, data in files.items():
        rev = world.couch.get(id)["_rev"] if id in world.couch.documents() else ""
        quoted = quote(name, safe="")
        answer = world.couch.request(
            "PUT",
            f"/{id}/{quoted}" + (f"?rev={rev}" if rev else ""),
            data=data,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.ok, answer.text


def content(attachment: dict[str, Any]) -> bytes:
    """The bytes of an attachment, which are those that CouchDB has a digest of."""
    data = base64.b64decode(attachment["data"])
    assert attachment["length"] == len(data)
    assert attachment["digest"] == f"md5-{base64.b64encode(hashlib.md5(data).digest()).decode()}"
    return data


def _content(world: World, id: str, name: str) -> bytes | None:
    found = _attachments(world, "whole").get(id, {})
    return content(found[name]) if name in found else None


def _attachments(world: World, table: str) -> dict[str, dict[str, Any]]:
    found = world.read("postgres", table)
    return {id: row.body["_attachments"] for id, row in found.items() if "_attachments" in row.body}


# --- plug-ins


INSTALLED = """
    from pillows.transports.jsonl.transport import JsonlTransport

    def adults(doc, age):
        return doc.get("age", 0) >= age

    class Greeting:
        def __init__(self, word):
            self.word = word

        def __call__(self, doc):
            return {"_id": doc["_id"], "text": f"{self.word} {doc['name']}"}

    class Shouting(JsonlTransport):
        def write(self, batch):
            result = super().write(batch)
            self._folder.joinpath("shouted").touch()
            return result
"""

REGISTERED = """
    from pillows.registry import register

    @register("transform", "signed")
    def signed(doc):
        return {**doc, "text": doc["text"] + "!"}
"""

ENTRY_POINTS = """
    [pillowd.filters]
    adults = acme_pillows:adults
    [pillowd.transforms]
    greeting = acme_pillows:Greeting
    [pillowd.transports]
    shouting = acme_pillows:Shouting
"""


def install(site: Path) -> None:
    """Installs a small distribution, as pip leaves one: a module, and its entry points beside it."""
    info = site / "acme_pillows-1.0.dist-info"
    info.mkdir(parents=True)
    write_module(site, "acme_pillows", INSTALLED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pillows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS))


def test_what_a_distribution_installs_and_a_plugin_registers_is_named_and_runs(world: World) -> None:
    """The daemon and `pillowd check`, with a filter, transforms and a transport that are not ours."""
    install(world.folder / "site")
    write_module(world.folder, "signing", REGISTERED)
    world.connections["files"] = {"type": "shouting", "folder": str(world.folder)}
    world.couch.put("a", name="Ada", age=36)
    world.couch.put("b", name="Ben", age=6)
    pillow = world.pillow(
        "people",
        filter={"name": "adults", "args": {"age": 18}},
        transform=[{"name": "greeting", "args": {"word": "Hello"}}, {"name": "signed"}],
        tests=[
            {"doc": {"_id": "x", "name": "Cy", "age": 50}, "rows": [{"_id": "x", "text": "Hello Cy!"}]},
            {"doc": {"_id": "y", "name": "Di", "age": 5}},
        ],
    )
    pillow["transport"] = [{"connection": "files", "file": "people.jsonl"}]
    site = {"PYTHONPATH": str(world.folder / "site")}
    daemon = world.pillowd({"people": pillow})

    checked = daemon.command("check", environ=site)
    assert checked.returncode == 0, checked.stderr
    daemon.start(environ=site)
    daemon.wait_for(lambda: live(daemon))
    lines = [json.loads(line) for line in (world.folder / "people.jsonl").read_text().splitlines()]
    assert {line["_id"]: line.get("doc") for line in lines} == {
        "a": {"_id": "a", "text": "Hello Ada!"},
        "b": None,
    }
    assert (world.folder / "shouted").exists()
    assert daemon.stop() == 0

    without = daemon.command("check")
    assert without.returncode == 78
    assert "there is no type `shouting`" in without.stderr, without.stderr
