"""`pillowd preview` on real data: it shows everything and changes nothing."""

from __future__ import annotations

import json
import sqlite3
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase

PLUGIN = """
    def rows(doc):
        return {"case": {"_id": doc["_id"], "n": 10 // doc["n"]}, "visit": doc.get("visits", [])}
"""


@pytest.fixture
def pillowd(tmp_path: Path, couch: Any, couch_db: CouchDatabase) -> Iterator[Pillowd]:
    server = couchdb(couch.url, couch.auth)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "preview_rows.py").write_text(textwrap.dedent(PLUGIN))
    connections = {
        "couch": server,
        "copies": server,
        "search": {"type": "elasticsearch", "hosts": ["http://127.0.0.1:9"]},
        "warehouse": {"type": "postgres", "dsn": "postgresql://nobody:s3cret@127.0.0.1:9/none"},
        "local": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")},
        "files": {"type": "jsonl", "folder": str(tmp_path)},
        "hook": {"type": "webhook", "url": "http://127.0.0.1:9/hook", "secret": "hush"},
        "nothing": {"type": "null"},
        "screen": {"type": "stdout"},
    }
    both = {
        "warehouse": {"case": {"table": "cases", "columns": {"n": "n integer"}},
                      "visit": {"table": "visits", "many": True}},
        "local": {"case": {"table": "cases", "columns": {"n": "n integer"}},
                  "visit": {"table": "visits", "many": True}},
        "files": {"case": {"file": "cases.jsonl"}, "visit": {"file": "visits.jsonl"}},
        "hook": {"case": {}, "visit": {}},
        "nothing": {"case": {}, "visit": {}},
        "screen": {"case": {}, "visit": {}},
    }  # fmt: skip
    transports = [{"connection": name, "outputs": outputs} for name, outputs in both.items()]
    transports.append({"connection": "search", "outputs": {"case": {"index": "cases"}}})
    transports.append({"connection": "copies", "outputs": {"case": {"database": "copy"}}})
    pillow = {
        "source": {"connection": "couch", "database": couch_db.name},
        "outputs": ["case", "visit"],
        "filter": {"jmespath": "doc.type == 'Case'"},
        "transform": {"python": "preview_rows:rows"},
        "transport": transports,
    }
    plain = {
        "source": {"connection": "couch", "database": couch_db.name},
        "transport": [{"connection": "local", "table": "plain"}],
    }
    with Pillowd(
        tmp_path,
        pillows={"cases": pillow, "plain": plain},
        connections=connections,
        daemon={"plugins_path": [str(tmp_path / "plugins")]},
    ) as made:
        yield made


def docs() -> list[dict[str, Any]]:
    return [
        {"_id": "a", "type": "Case", "n": 2, "visits": [{"on": "mon"}, {"on": "tue"}]},
        {"_id": "b", "type": "Form", "n": 1},
        {"_id": "bad", "type": "Case", "n": 0},
        {"_id": "gone", "type": "Case", "n": 1},
    ]


@pytest.fixture
def filled(couch_db: CouchDatabase) -> CouchDatabase:
    couch_db.bulk(docs())
    couch_db.delete("gone")
    return couch_db


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for what Python itself writes."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_shows_filter_document_rows_and_the_very_requests(pillowd: Pillowd, filled: CouchDatabase) -> None:
    (shown,) = pillowd.ask("preview", "cases", "--id", "a")
    assert shown["filter"] == "kept: doc.type == 'Case' is True"
    assert shown["document"]["visits"] == [{"on": "mon"}, {"on": "tue"}]
    assert shown["rows"] == {"case": [{"_id": "a", "n": 5}], "visit": [{"on": "mon"}, {"on": "tue"}]}
    assert shown["errors"] == {}
    requests = shown["requests"]
    guard = (1 << 40) + 1
    action, source = requests["search"].splitlines()[1:]
    assert "-write/_bulk?require_alias=true&" in requests["search"].splitlines()[0]
    assert json.loads(action) == {"index": {"_id": "a", "version": guard, "version_type": "external"}}
    assert json.loads(source) == {"n": 5}
    assert f"a\t{shown['rev']}\t{guard}\t5\n" in requests["warehouse"]
    assert 'copy "public"."cases"' in requests["warehouse"]
    assert f"VALUES ('a', '{shown['rev']}', {guard}, 5)" in requests["local"].replace(",'", ", '")
    assert json.loads(requests["hook"].splitlines()[1])["documents"][0]["rows"]["case"] == [
        {"_id": "a", "n": 5}
    ]
    assert json.loads(requests["files"].splitlines()[0])["doc"] == {"_id": "a", "n": 5}
    assert requests["copies"].startswith("POST /copy/_bulk_docs")
    assert requests["nothing"] == "nothing"
    shown_rows = [json.loads(line) for line in requests["screen"].splitlines()]
    assert [each["doc"] for each in shown_rows] == [{"_id": "a", "n": 5}, {"on": "mon"}, {"on": "tue"}]


def test_it_tells_why_a_document_leaves_or_would_be_a_dead_letter(
    pillowd: Pillowd, filled: CouchDatabase
) -> None:
    shown = {each["id"]: each for each in pillowd.ask("preview", "cases", "--limit", "10")}
    assert set(shown) == {"a", "b", "bad", "gone"}
    assert shown["b"]["filter"] == "not kept: doc.type == 'Case' is False"
    assert shown["b"]["rows"] == {}
    assert '"delete"' in shown["b"]["requests"]["search"]
    assert shown["gone"]["filter"] == "not kept: it is deleted"
    assert "ZeroDivisionError" in shown["bad"]["errors"]["transform"]
    assert shown["bad"]["requests"] == {}


def test_it_writes_nothing_and_moves_nothing(pillowd: Pillowd, filled: CouchDatabase, tmp_path: Path) -> None:
    """A preview changes nothing: with a checkpoint, while a daemon runs, or where nothing was made yet."""
    before = everything(tmp_path)
    assert len(pillowd.ask("preview", "plain", "--limit", "3")) == 3
    assert {name: text for name, text in everything(tmp_path).items() if name not in before} == {}

    pillowd.start("--pillow-key", "plain")
    pillowd.wait_for(lambda: pillowd.status("plain")["state"] == "live")
    assert [each["id"] for each in pillowd.ask("preview", "plain", "--id", "b")] == ["b"]
    assert pillowd.ask("preview", "plain") == []  # it has seen everything
    assert pillowd.stop() == 0
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as db:
        stored = db.execute("select * from plain order by _id").fetchall()
    after = {name: text for name, text in everything(tmp_path).items() if "/state/" in name}
    saved = pillowd.ask("checkpoint", "get", "plain")

    pillowd.ask("preview", "plain", "--id", "a", "--id", "gone")
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as db:
        assert db.execute("select * from plain order by _id").fetchall() == stored
    left = {name: text for name, text in everything(tmp_path).items() if "/state/" in name}
    assert {n: t for n, t in left.items() if "lock" not in n} == {
        n: t for n, t in after.items() if "lock" not in n
    }
    assert pillowd.ask("checkpoint", "get", "plain") == saved


def test_people_read_it_and_no_secret(pillowd: Pillowd, filled: CouchDatabase) -> None:
    done = pillowd.command("preview", "cases", "--id", "a")
    assert done.returncode == 0, done.stderr
    assert "filter: kept: doc.type == 'Case' is True" in done.stdout
    assert 'row of visit: {"on": "tue"}' in done.stdout
    assert "s3cret" not in done.stdout
    assert "hush" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["cases", "--id", "nobody"], 1, "has no document nobody"),
        (["nothing"], 2, "nothing"),
    ],
)
def test_what_cannot_be_shown_is_told(
    pillowd: Pillowd, filled: CouchDatabase, arguments: list[str], code: int, reason: str
) -> None:
    done = pillowd.command("preview", *arguments)
    assert (done.returncode, reason in done.stderr) == (code, True), done.stderr


def test_a_source_that_is_away_is_told_at_once(
    pillowd: Pillowd, couch: Any, tcp_proxy: Callable[[Any], Any]
) -> None:
    proxy = tcp_proxy(couch)
    text = pillowd.config.read_text().replace(couch.url, f"http://127.0.0.1:{proxy.port}")
    pillowd.config.write_text(text)
    proxy.refuse()
    assert pillowd.command("preview", "cases").returncode == 75


def test_recorded_changes_are_shown_without_the_source(
    pillowd: Pillowd, filled: CouchDatabase, couch: Any, tcp_proxy: Callable[[Any], Any], tmp_path: Path
) -> None:
    """The preview begins at the file's beginning, wherever the checkpoint is, and needs no source."""
    recorded = tmp_path / "changes.json"
    asked = {"style": "all_docs", "include_docs": "true"}
    recorded.write_bytes(filled.request("GET", "/_changes", params=asked).content)
    live = _untimed(pillowd.ask("preview", "cases", "--limit", "10"))
    proxy = tcp_proxy(couch)
    pillowd.config.write_text(pillowd.config.read_text().replace(couch.url, f"http://127.0.0.1:{proxy.port}"))
    proxy.refuse()
    shown = _untimed(pillowd.ask("preview", "cases", "--limit", "10", "--changes", str(recorded)))
    # CouchDB merges its shards in another order for each request.
    assert sorted(shown, key=lambda each: each["id"]) == sorted(live, key=lambda each: each["id"])
    assert [each["id"] for each in shown] == [
        row["id"] for row in json.loads(recorded.read_text())["results"]
    ]
    (one,) = pillowd.ask("preview", "cases", "--id", "a", "--changes", str(recorded))
    assert one["rows"]["case"] == [{"_id": "a", "n": 5}]
    followed = tmp_path / "followed.json"
    rows = json.loads(recorded.read_text())["results"]
    followed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _untimed(pillowd.ask("preview", "cases", "--limit", "10", "--changes", str(followed))) == shown


def _untimed(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the previews without the requests that hold the time of a deletion."""
    for each in shown:
        each["requests"].pop("local", None)
    return shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{broken\n", "changes.json is not a recorded answer of _changes"),
        (
            '{"results":[\n{"seq":"1-a","id":"a","changes":[{"rev":"1-a"}]}\n],\n"last_seq":"1-a"}',
            "include_docs",
        ),
    ],
)
def test_a_recording_that_cannot_be_shown_is_told(
    pillowd: Pillowd, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "changes.json").write_text(text)
    done = pillowd.command("preview", "cases", "--changes", str(tmp_path / "changes.json"))
    assert (done.returncode, reason in done.stderr) == (1, True), done.stderr


def test_recorded_changes_that_are_no_file_are_a_usage_error(pillowd: Pillowd, tmp_path: Path) -> None:
    assert pillowd.command("preview", "cases", "--changes", str(tmp_path / "none")).returncode == 2
