"""Views of design documents: made anew for each request, with the built-in reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.servers.couchdb.collation import compare, key
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Shown, write_document
from tests.servers.couchdb.errors import Refusal, missing
from tests.servers.couchdb.filters import compiled, design_document, run
from tests.servers.couchdb.http import Request, Response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.revisions import Tree
from tests.servers.couchdb.view_arguments import ABSENT, Arguments, read_arguments

REDUCERS: dict[str, Callable[[list[Any]], Any]] = {
    "_sum": sum,
    "_count": len,
    "_stats": lambda values: {
        "sum": sum(values),
        "count": len(values),
        "min": min(values),
        "max": max(values),
        "sumsqr": sum(value * value for value in values),
    },
}

Row = tuple[Any, str, Any]  # key, id, value


def get_view(request: Request, database: Database, design: str, name: str) -> Response:
    """Answer `GET` and `POST /{db}/_design/{design}/_view/{name}`."""
    views = design_document(database, design).get("views")
    view = views.get(name) if isinstance(views, dict) else None
    if not isinstance(view, dict):
        raise missing("missing_named_view")
    arguments = read_arguments(request)
    rows = _rows(database, view.get("map", ""))
    if view.get("reduce") and arguments.reduce:
        return _reduced(view["reduce"], _in_range(rows, arguments)[0], arguments)
    chosen, offset = _in_range(rows, arguments)
    end = None if arguments.limit is None else arguments.skip + arguments.limit
    shown = chosen[arguments.skip : end]
    head: dict[str, Any] = {"total_rows": len(rows), "offset": offset + min(arguments.skip, len(chosen))}
    if arguments.update_seq:
        head["update_seq"] = database.update_seq()
    texts = [_text(database, row, arguments) for row in shown]
    body = dumps(head)[:-1] + b',"rows":[\r\n' + b",\r\n".join(texts) + b"\r\n]}\n"
    return Response(200, iter([body]))


def _rows(database: Database, source: str) -> list[Row]:
    function = compiled(database, source)
    rows: list[Row] = []
    for doc_id in database.ids():
        tree = database.tree(doc_id)
        if tree and not doc_id.startswith("_design/"):
            emitted = run(function, write_document(doc_id, tree.winner, Shown()))[1]
            rows += [(one, doc_id, value) for one, value in emitted]
    return sorted(rows, key=lambda row: (key(row[0]), row[1]))


def _in_range(rows: list[Row], arguments: Arguments) -> tuple[list[Row], int]:
    if arguments.keys is not None:
        return [row for one in arguments.keys for row in rows if compare(row[0], one) == 0], 0
    ordered = rows[::-1] if arguments.descending else rows
    sign = -1 if arguments.descending else 1
    last = 0 if arguments.inclusive_end else -1

    def starts(row: Row) -> bool:
        return arguments.startkey is ABSENT or sign * compare(row[0], arguments.startkey) >= 0

    def ends(row: Row) -> bool:
        return arguments.endkey is ABSENT or sign * compare(row[0], arguments.endkey) <= last

    before = sum(not starts(row) for row in ordered)
    return [row for row in ordered if starts(row) and ends(row)], before


def _text(database: Database, row: Row, arguments: Arguments) -> bytes:
    one, doc_id, value = row
    head = dumps({"id": doc_id, "key": one, "value": value})
    if not arguments.include_docs:
        return head
    tree: Tree | None = database.tree(doc_id)
    assert tree is not None
    return b'%b,"doc":%b}' % (head[:-1], write_document(doc_id, tree.winner, Shown()))


def _reduced(reducer: str, rows: list[Row], arguments: Arguments) -> Response:
    if reducer not in REDUCERS:
        raise Refusal(500, "error", "The tests' CouchDB has only built-in reductions.")
    groups: list[tuple[Any, list[Any]]] = []
    for one, _, value in rows:
        name = one if arguments.group else None
        if not groups or compare(groups[-1][0], name) != 0:
            groups.append((name, []))
        groups[-1][1].append(value)
    texts = [dumps({"key": name, "value": REDUCERS[reducer](values)}) for name, values in groups]
    return Response(200, iter([b'{"rows":[\r\n' + b",\r\n".join(texts) + b"\r\n]}\n"]))
