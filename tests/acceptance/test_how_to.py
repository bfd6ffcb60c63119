"""The how-to pages with configurations, followed by the real daemon step by step.

Only what names the reader's own machines is replaced: servers, folders, and names that others use as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import requests
import yaml

from tests.acceptance.process import ROOT, couchdb
from tests.acceptance.world import World, live, statuses
from tests.servers.scripted import Request, ScriptedServer, head
from tests.support.databases import Databases
from tests.support.kafka_reader import read_topic
from tests.support.sizes import proving

HOW_TO = ROOT / "docs" / "how-to"


class Page:
    """A page, and a daemon with the configuration that it shows."""

    def __init__(self, world: World, name: str, replaced: dict[str, str]) -> None:
        self.text = (HOW_TO / name).read_text()
        (shown,) = (block for block in self.blocks("yaml") if "\npillows:" in block)  # others are excerpts
        for old, new in replaced.items():
            assert old in shown, f"the page does not say {old} any more"
            shown = shown.replace(old, new)
        settings = yaml.safe_load(shown)
        settings["connections"]["couch"] = world.connections["couch"]
        self.daemon = world.pillowd({})
        own = yaml.safe_load(self.daemon.config.read_text())["daemon"]
        settings["daemon"] = {**own, **settings.get("daemon", {})}
        self.daemon.config.write_text(yaml.safe_dump(settings))

    def blocks(self, language: str) -> list[str]:
        found = re.findall(rf"^```{language}\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)
        assert found, f"no block of {language}"
        return found

    def command(self, line: str) -> str:
        """Runs a command that the page shows. Returns what it prints."""
        assert re.search(rf"(?m)^{re.escape(line)}$|`{re.escape(line)}`", self.text), f"no {line!r} there"
        done = self.daemon.command_here(*line.split()[1:])
        assert done.returncode == 0, done.stderr
        return done.stdout


def put(world: World, document: dict[str, Any], **changed: Any) -> None:
    world.couch.put(document["_id"], {k: v for k, v in (document | changed).items() if k[0] != "_"})


def test_nested_documents_become_a_parent_and_a_child_table(world: World) -> None:
    page = Page(
        world,
        "nested-documents.md",
        {
            "postgresql://pillowd@db.example/reporting": world.postgres_dsn,
            "shop }": f"{world.couch.name} }}",
        },
    )
    (function,), (example,) = page.blocks("python"), page.blocks("json")
    total, index = page.blocks("sql")
    order = json.loads(example)
    module: dict[str, Any] = {}
    exec(function, module)
    assert module["rows"](order) == {"orders": order, "order_lines": order["lines"]}, "as the YAML makes them"
    put(world, order)
    world.couch.put("customer-1", {"type": "customer"})
    daemon = page.daemon

    with psycopg.connect(world.postgres_dsn, autocommit=True) as reader:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return [tuple(map(str, row)) for row in reader.execute(query.encode())]

        def counted() -> list[tuple[Any, ...]]:
            return rows("select (select count(*) from orders), (select count(*) from order_lines)")

        assert page.command("pillowd check --connect")
        daemon.start()
        daemon.wait_for(lambda: live(daemon))
        assert rows(total) == [_table_row(page.text)]
        reader.execute(index.encode())

        put(world, order, lines=[{"sku": "A-1", "count": "many"}])
        daemon.wait_for(lambda: statuses(daemon)["orders"]["dead_letters"] == 1)
        assert counted() == [("1", "2")], "its earlier rows stay until the document is mended"
        put(world, order, lines=order["lines"][:1])
        daemon.wait_for(lambda: counted() == [("1", "1")])
        daemon.wait_for(lambda: statuses(daemon)["orders"]["dead_letters"] == 0)
        put(world, order, type="no order any more")
        daemon.wait_for(lambda: counted() == [("0", "0")])
    assert daemon.stop() == 0


def test_g10_rows_of_deleted_documents_are_kept_as_the_page_says(world: World) -> None:
    page = Page(
        world,
        "keep-deleted-rows.md",
        {
            "postgresql://pillowd@db.example/reporting": world.postgres_dsn,
            "shop }": f"{world.couch.name} }}",
        },
    )
    view, cleaning = page.blocks("sql")
    for id in ("o1", "o2", "o3"):
        world.couch.put(id, {"type": "order", "customer": "Ada", "lines": [{"sku": "A"}, {"sku": "B"}]})
    requests.put(
        f"{world.couch.url}/o1/a.txt?rev={world.couch.get('o1')['_rev']}",
        data=b"hello",
        headers={"content-type": "text/plain"},
        auth=world.couch.auth,
        timeout=60,
    ).raise_for_status()
    daemon = page.daemon.start()
    daemon.wait_for(lambda: live(daemon))

    with psycopg.connect(world.postgres_dsn, autocommit=True) as reader:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return reader.execute(query.encode()).fetchall()

        reader.execute(view.encode())
        digest = world.couch.get("o1")["_attachments"]["a.txt"]["digest"]
        assert rows("select _id, files, digests from orders order by 1") == [
            ("o1", ["a.txt"], [digest]),
            ("o2", [], []),
            ("o3", [], []),
        ]
        world.couch.delete("o2")
        world.couch.put("o3", {"type": "offer"})
        marked = "select count(*) from orders where _deleted_at is not null"
        daemon.wait_for(lambda: rows(marked) == [(2,)])
        assert rows("select _id from current_orders") == [("o1",)]
        assert rows("select count(*), count(_deleted_at) from order_lines") == [(6, 4)]
        verified = daemon.command_here("verify", "orders", "--repair")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        world.couch.put("o2", {"type": "order", "customer": "Bob", "lines": []})
        daemon.wait_for(lambda: rows(marked) == [(1,)])
        assert rows("select _id, customer from current_orders order by 1") == [("o1", "Ada"), ("o2", "Bob")]
        assert rows("select count(*), count(_deleted_at) from order_lines") == [(4, 2)], "o2 has none"
        first = rows("select _deleted_at from orders where _id = 'o3'")
        assert "orders" in daemon.command_here("checkpoint", "reset", "orders").stdout
        daemon.wait_for(lambda: statuses(daemon)["orders"]["state"] == "live")
        daemon.wait_for(lambda: rows("select min(_version) >> 40 > 1 from orders") == [(True,)])
        assert rows("select _deleted_at from orders where _id = 'o3'") == first
        reader.execute(cleaning.replace("1 year", "0 s").encode())
        assert daemon.command_here("verify", "orders").returncode == 0
    assert daemon.stop() == 0


def test_g10_documents_of_an_index_are_kept_as_the_page_says(world: World) -> None:
    text = (HOW_TO / "keep-deleted-rows.md").read_text()
    (excerpt,) = re.findall(r"^```yaml\n(transport:\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    pillow = world.pillow("orders", "elasticsearch")
    (shown,) = yaml.safe_load(excerpt)["transport"]
    pillow["transport"] = [pillow["transport"][0] | {"deletes": shown["deletes"]}]
    daemon = world.pillowd({"orders": pillow})

    index = f"{world.elasticsearch_url}/{world.alias('orders')}"

    def hits() -> dict[str, dict[str, Any]]:
        requests.post(f"{index}/_refresh", timeout=60)
        found = requests.get(f"{index}/_search?version=true", timeout=60).json()
        return {hit["_id"]: hit for hit in found.get("hits", {}).get("hits", [])}

    def stored() -> dict[str, dict[str, Any]]:
        return {id: hit["_source"] for id, hit in hits().items()}

    def versions() -> dict[str, int]:
        return {id: hit["_version"] for id, hit in hits().items()}

    def marked() -> dict[str, str]:
        return {id: row["_deleted_at"] for id, row in stored().items() if "_deleted_at" in row}

    for id in ("o1", "o2", "o3", "o4"):
        world.couch.put(id, {"customer": "Ada"})
    daemon.start()
    daemon.wait_for(lambda: live(daemon) and len(stored()) == 4)
    world.couch.delete("o2")
    (world.couch.purge if proving() else world.couch.delete)("o3")  # a purge is noticed within 30 s
    daemon.wait_for(lambda: set(marked()) == {"o2", "o3"})
    world.couch.put("o2", {"customer": "Bob"})
    world.couch.delete("o4")
    daemon.wait_for(lambda: set(marked()) == {"o3", "o4"})
    verified = daemon.command_here("verify", "orders", "--content", "--repair")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    kept, epoch = marked(), versions()["o1"] >> 40
    assert stored()["o4"]["customer"] == "Ada"
    assert daemon.command_here("checkpoint", "reset", "orders", "--yes").returncode == 0
    daemon.wait_for(lambda: live(daemon) and versions()["o1"] >> 40 > epoch)
    assert marked() == kept, "the first mark stays"
    assert "_deleted_at" in daemon.command_here("preview", "orders", "--id", "o4").stdout
    assert daemon.stop() == 0


def test_an_opensearch_index_is_kept_as_the_page_says(
    world: World, opensearch_url: str, es_prefix: str
) -> None:
    page = Page(
        world,
        "opensearch.md",
        {
            "http://os.example:9200": opensearch_url,
            "index: cases": f"index: {es_prefix}cases",
            "database: cases": f"database: {world.couch.name}",
        },
    )
    world.couch.put("c1", {"doc_type": "Case", "name": "leaking roof", "opened_on": "2026-03-01"})
    index = f"{opensearch_url}/{es_prefix}cases"

    def search(query: str) -> dict[str, Any]:
        requests.post(f"{index}/_refresh", timeout=60)
        found = requests.get(f"{index}/_search?q={query}", timeout=60).json()
        return {hit["_id"]: hit["_source"] for hit in found.get("hits", {}).get("hits", [])}

    assert "OpenSearch answers" in page.command("pillowd check --connect")
    previewed = page.command("pillowd preview cases")
    assert "_bulk?require_alias=true" in previewed
    assert "leaking roof" in previewed
    # Only now: of several changes in several shards any may be the next one.
    world.couch.put("c2", {"doc_type": "Case", "name": "broken lamp", "opened_on": "next week"})
    world.couch.put("p1", {"doc_type": "Person", "name": "Ann"})
    daemon = page.daemon.start()
    daemon.wait_for(lambda: live(daemon))
    assert set(search("name:roof")) == {"c1"}
    (lamp,) = search("name:lamp").values()
    assert lamp["pillowd_unindexed"] == {"opened_on": "next week"}
    assert statuses(daemon)["cases"]["dead_letters"] == 0
    assert page.command("pillowd verify cases --content")
    requests.post(f"{index}/_update/c1", json={"doc": {"name": "HACK"}}, timeout=60).raise_for_status()
    verified = daemon.command_here("verify", "cases", "--content", "--repair")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert set(search("name:roof")) == {"c1"}
    world.couch.delete("c2")
    daemon.wait_for(lambda: search("name:lamp") == {})
    assert daemon.stop() == 0


def test_documents_are_published_to_kafka_as_the_page_says(
    world: World, kafka: str, kafka_prefix: str
) -> None:
    page = Page(
        world,
        "kafka.md",
        {
            "kafka.example:9092": kafka,
            "topic: cases": f"topic: {kafka_prefix}cases",
            "database: cases": f"database: {world.couch.name}",
        },
    )
    module: dict[str, Any] = {}
    exec(page.blocks("python")[0], module)
    world.couch.put("c1", {"doc_type": "Case", "name": "leaking roof", "opened_on": "2026-03-01"})
    world.couch.put("p1", {"doc_type": "Person", "name": "Ann"})

    def read() -> dict[str, Any]:
        applied = [module["apply"](message) for message in read_topic(kafka, f"{kafka_prefix}cases")]
        rows = dict(each for each in applied if each is not None)
        return {id: row for id, row in rows.items() if row is not None}

    assert f"the topic {kafka_prefix}cases will be created" in page.command("pillowd check --connect")
    assert '{"name":"leaking roof","opened_on":"2026-03-01"}' in page.command("pillowd preview cases")
    daemon = page.daemon.start()
    daemon.wait_for(lambda: live(daemon))
    assert read() == {"c1": {"name": "leaking roof", "opened_on": "2026-03-01"}}
    world.couch.delete("c1")
    daemon.wait_for(lambda: read() == {})
    refused = daemon.command_here("verify", "cases")
    assert "topics, streams and webhooks only ever receive more" in refused.stderr
    assert daemon.stop() == 0


def _table_row(text: str) -> tuple[str, ...]:
    """The first row of the page's table."""
    line = text.split("|---|---|---|\n")[1].splitlines()[0]
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def test_chosen_documents_are_sent_again(world: World) -> None:
    page = Page(
        world,
        "send-documents-again.md",
        {
            "cases.sqlite": str(world.folder / "cases.sqlite"),
            "database: cases": f"database: {world.couch.name}",
        },
    )
    for number in range(3):
        world.couch.put(f"case-2026-{number}", {"type": "case"})
    world.couch.put("order-1", {"type": "order"})
    daemon = page.daemon.start()
    daemon.wait_for(lambda: live(daemon))
    (daemon.folder / "ids.txt").write_text("case-2026-1\norder-1\ngone\n")
    assert "3 documents sent" in page.command("pillowd backfill cases --ids ids.txt")
    assert "3 documents sent" in page.command("pillowd backfill cases --prefix case-2026-")
    done = daemon.command_here("backfill", "cases", "--selector", '{"type": "case"}')
    assert (done.returncode, "3 documents sent" in done.stdout) == (0, True), done.stdout
    assert "1 document" not in page.command("pillowd backfill retry cases --range 1")
    assert "cases@couch" in page.command("pillowd backfill status cases")
    assert [each["state"] for each in daemon.ask_here("backfill", "status", "cases")] == ["done"] * 3
    assert daemon.stop() == 0


def test_an_index_gets_its_mapping_and_changes_it_later(world: World) -> None:
    page = Page(
        world,
        "elasticsearch-mappings.md",
        {
            "http://es.example:9200": world.elasticsearch_url,
            "index: cases": f"index: {world.alias('cases')}",
            "database: cases": f"database: {world.couch.name}",
        },
    )
    first, example, added, changed = page.blocks("json")
    mapping = page.daemon.folder / "mappings" / "cases.json"
    mapping.parent.mkdir()
    mapping.write_text(first)
    case = json.loads(example)
    put(world, case)
    daemon = page.daemon

    assert daemon.command("check").returncode == 0
    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    assert [hit["_id"] for hit in _hits(world, "_search?q=owner.name:ann")] == [case["_id"]]
    world.couch.put("case-18", {**case_fields(case), "opened_on": "next week"})
    daemon.wait_for(lambda: statuses(daemon)["cases"]["dead_letters"] == 1)
    listed = page.command("pillowd dead-letter list cases")
    assert "case-18" in listed
    assert "opened_on" in listed
    world.couch.put("case-18", {**case_fields(case), "name": "Attic", "opened_on": "2026-03-08"})
    daemon.wait_for(lambda: statuses(daemon)["cases"]["dead_letters"] == 0)
    assert daemon.stop() == 0

    (old,) = _behind(world)
    mapping.write_text(added)
    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    put(world, {**case, "_id": "case-19", "status": "open"})
    daemon.wait_for(lambda: [hit["_id"] for hit in _hits(world, "_search?q=status:open")] == ["case-19"])
    world.couch.delete("case-19")
    assert _behind(world) == [old]
    assert daemon.stop() == 0
    mapping.write_text(changed)
    daemon.start()
    daemon.wait_for(lambda: statuses(daemon)["cases"]["state"] == "failed")
    assert "pillowd checkpoint reset cases" in statuses(daemon)["cases"]["reason"]
    page.command("pillowd checkpoint reset cases")
    daemon.wait_for(lambda: _behind(world) != [old])
    (new,) = _behind(world)
    assert {hit["_id"] for hit in _hits(world, "_search?q=owner.name:ANN")} == {"case-17", "case-18"}
    assert old in page.command("pillowd index list cases")
    infos = json.loads(daemon.command("index", "list", "cases", "--json").stdout)
    by_name = {each["name"]: each for each in infos}
    assert {name: each["use"] for name, each in by_name.items()} == {old: "old", new: "searched"}
    assert by_name[old].keys() == {"name", "use", "documents", "size_bytes", "created_at", "loading"}
    assert [each["loading"] for each in by_name.values()] == [False, False]
    refused = daemon.command("index", "remove", "cases")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True), "without a terminal"
    refused = daemon.command("index", "remove", "cases", new, "--yes")
    assert (refused.returncode, "in use (searched)" in refused.stderr) == (1, True)
    assert "has no index nope" in daemon.command("index", "remove", "cases", "nope", "--yes").stderr
    assert "1 index removed" in page.command("pillowd index remove cases --yes")
    assert old not in page.command("pillowd index list cases")
    assert _behind(world) == [new]
    world.couch.delete("case-18")
    daemon.wait_for(lambda: "case-18" not in world.read("elasticsearch", "cases"))
    assert daemon.stop() == 0


def test_g5_a_transport_of_one_s_own_is_written_as_the_page_shows(
    world: World, scripted_server: Callable[[], ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets: list[Request] = []
    answers = {"late": [503, 503], "bad": [422] * 100}  # the batch, in any order, is sent again

    def take(request: Request) -> bytes:
        tickets.append(request)
        left = answers.get(request.json()["_id"], [])
        return head(left.pop(0) if left else 201, length=0)

    monkeypatch.setenv("TICKETS_TOKEN", "s3cret")
    server = scripted_server()
    server.on("POST", "/complaints", take)
    page = Page(
        world,
        "write-a-transport.md",
        {
            "http://tickets.example": server.url,
            "/etc/pillowd/plugins": str(world.folder),
            "shop }": f"{world.couch.name} }}",
        },
    )
    (module,) = page.blocks("python")
    (world.folder / "tickets.py").write_text(module)
    for id in ("fine", "late", "bad"):
        world.couch.put(id, {"type": "complaint", "subject": "Late", "internal": 1})
    world.couch.put("order-1", {"type": "order"})
    daemon = page.daemon

    assert page.command("pillowd check")
    daemon.start(environ={"TICKETS_TOKEN": "s3cret"})
    daemon.wait_for(lambda: live(daemon) and statuses(daemon)["complaints"]["dead_letters"] == 1)
    assert {ticket.json()["_id"] for ticket in tickets} == {"fine", "late", "bad"}
    assert all(set(ticket.json()) == {"_id", "subject"} for ticket in tickets)
    assert {ticket.headers["authorization"] for ticket in tickets} == {"Bearer s3cret"}
    keys = [ticket.headers["idempotency-key"] for ticket in tickets]
    assert keys.count("late 1 0") == 3, "repeated under the same key"
    assert daemon.stop() == 0


def test_g4_several_pillows_on_one_database_have_their_own_filters(world: World) -> None:
    page = Page(
        world,
        "several-pillows-on-one-database.md",
        {
            "http://es.example:9200": world.elasticsearch_url,
            "postgresql://pillowd@db.example/reporting": world.postgres_dsn,
            "/var/lib/pillowd/audit": str(world.folder / "audit"),
            "index: complaints": f"index: {world.alias('complaints')}",
            "database: shop }": f"database: {world.couch.name} }}",
        },
    )
    (world.folder / "audit").mkdir()
    world.couch.put("c1", {"type": "complaint"})
    world.couch.put("o1", {"type": "order", "customer": "Ada", "total": 3})
    daemon = page.daemon.start()
    daemon.wait_for(lambda: live(daemon))

    assert set(world.read("elasticsearch", "complaints")) == {"c1"}
    assert set(world.read("postgres", "orders")) == {"o1"}
    audit = (world.folder / "audit" / "shop.jsonl").read_text()
    assert {json.loads(line)["_id"] for line in audit.splitlines()} == {"c1", "o1"}
    for line in ("pillowd status", "pillowd pause orders", "pillowd checkpoint reset complaints"):
        page.command(line)
    daemon.wait_for(lambda: live(daemon, "complaints", "audit"))
    assert statuses(daemon)["orders"]["state"] == "paused"
    assert daemon.stop() == 0


def case_fields(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if not name.startswith("_")}


def _behind(world: World) -> list[str]:
    answer = requests.get(f"{world.elasticsearch_url}/_alias/{world.alias('cases')}", timeout=60)
    return sorted(answer.json())


def _hits(world: World, query: str) -> list[dict[str, Any]]:
    url = f"{world.elasticsearch_url}/{world.alias('cases')}"
    requests.post(f"{url}/_refresh", timeout=60).raise_for_status()
    answer = requests.get(f"{url}/{query}", timeout=60)
    answer.raise_for_status()
    hits: list[dict[str, Any]] = answer.json()["hits"]["hits"]
    return hits


def test_databases_of_users_become_one_table(world: World, databases: Databases) -> None:
    for name in ("ada", "grace"):
        databases.create(name, 2)
    world.connections["couch"] = couchdb(databases.server.url, databases.server.auth)
    page = Page(
        world,
        "database-per-user.md",
        {
            "postgresql://pillowd@db.example/reporting": world.postgres_dsn,
            '"user-*"': f'"{databases.prefix}*"',
            "user-test-*": f"{databases.prefix}test-*",
        },
    )
    daemon = page.daemon.start()
    daemon.wait_for(lambda: daemon.status("users")["databases"] == {"parked": 2})
    assert "2 databases: 2 parked" in page.command("pillowd status")
    assert f"{databases.prefix}grace" in page.command("pillowd databases users")
    page.command("pillowd databases users --state failed")
    page.command("pillowd verify users")
    of_one = [line for line in page.text.splitlines() if line.startswith("pillowd ") and "@couch/" in line]
    assert len(of_one) == 6
    for line in of_one:
        arguments = line.replace("user-", databases.prefix).split()[1:]
        done = page.daemon.command_here(*arguments, *(["--yes"] if "backfill" in line else []))
        assert done.returncode == 0, done.stderr
    (query,) = page.blocks("sql")
    with psycopg.connect(world.postgres_dsn) as reader:
        counts = dict(reader.execute(query).fetchall())
        owners = reader.execute("select distinct doc->>'owner' from documents").fetchall()
    assert counts == {f"couch/{databases.prefix}{name}": 2 for name in ("ada", "grace")}
    assert sorted(owners) == [(f"{databases.prefix}{name}",) for name in ("ada", "grace")]
