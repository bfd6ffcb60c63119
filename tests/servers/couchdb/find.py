"""`_find` and `_index`: selectors over all documents; an index only decides whether there is a warning."""

from __future__ import annotations

from typing import Any

from tests.servers.couchdb.collation import key
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Edit, Shown, write_document
from tests.servers.couchdb.errors import Refusal, missing
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.jsontext import dumps, loads
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.selector import InvalidOperator, invalid_operator, matcher
from tests.servers.couchdb.writing import Writer, design_documents

LIMIT = 25
WARNING = "No matching index found, create an index to optimize query time."
NO_INDEX = "No index exists for this sort, try indexing by the sort fields."
SPECIAL = {"ddoc": None, "name": "_all_docs", "type": "special", "def": {"fields": [{"_id": "asc"}]}}


def _required(body: dict[str, Any], name: str) -> Any:
    if name not in body:
        raise Refusal(400, "missing_required_key", f"Missing required key: {name}")
    return body[name]


def find(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_find`."""
    body = request.json_object()
    selector = _required(body, "selector")
    try:
        matches = matcher(selector)
    except InvalidOperator as error:
        raise invalid_operator(error) from None
    order = [one if isinstance(one, dict) else {one: "asc"} for one in body.get("sort", [])]
    indexed = _is_indexed(database, selector, order)
    if order and not indexed:
        raise Refusal(400, "no_usable_index", NO_INDEX)
    found = [document for document in _documents(database) if matches(document)]
    for field in reversed(order):
        (name, direction), *_ = field.items()
        found.sort(key=lambda document: key(document.get(name)), reverse=direction == "desc")
    found = _after(found, body.get("bookmark", "nil"))
    skip, limit = body.get("skip", 0), body.get("limit", LIMIT)
    page = found[skip : skip + limit]
    shown = [_fields(document, body.get("fields")) for document in page]
    answer = {"docs": shown, "bookmark": dumps([page[-1]["_id"]]).hex() if page else "nil"}
    if not indexed:
        answer["warning"] = WARNING
    return Response(200, iter([dumps(answer) + b"\n"]))


def _after(found: list[dict[str, Any]], bookmark: str) -> list[dict[str, Any]]:
    """Return the documents behind the one that a bookmark names, or where that would be without a sort."""
    if bookmark == "nil":
        return found
    (last,) = loads(bytes.fromhex(bookmark))
    ids = [document["_id"] for document in found]
    return found[ids.index(last) + 1 :] if last in ids else [each for each in found if each["_id"] > last]


def _documents(database: Database) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for doc_id in database.ids():
        tree = database.tree(doc_id)
        if tree and not doc_id.startswith("_design/"):
            found.append(loads(write_document(doc_id, tree.winner, Shown())))
    return found


def _fields(document: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    return document if names is None else {name: document[name] for name in names if name in document}


def _is_indexed(database: Database, selector: Any, order: list[dict[str, str]]) -> bool:
    """Return whether an index has all its fields in the query, and its first ones in the order."""
    sorted_by = [name for one in order for name in one]
    for index in _indexes(database):
        fields = [name for one in index["def"]["fields"] for name in one]
        if set(fields) <= {*selector, *sorted_by} and fields[: len(sorted_by)] == sorted_by:
            return True
    return False


def _indexes(database: Database) -> list[dict[str, Any]]:
    indexes: list[dict[str, Any]] = []
    for doc_id, design in design_documents(database).items():
        views = design.get("views") if design.get("language") == "query" else None
        for name, view in (views or {}).items():
            fields = [{field: order} for field, order in view["map"]["fields"].items()]
            row = {"ddoc": doc_id, "name": name, "type": "json", "partitioned": False}
            indexes.append({**row, "def": {"fields": fields}})
    return indexes


def list_indexes(request: Request, node: Node, database: Database) -> Response:
    """Answer `GET /{db}/_index`."""
    del request, node
    indexes = [SPECIAL, *_indexes(database)]
    return json_response({"total_rows": len(indexes), "indexes": indexes})


def create_index(request: Request, node: Node, database: Database) -> Response:
    """Answer `POST /{db}/_index`."""
    body = request.json_object()
    given = _required(_required(body, "index"), "fields")
    fields = {
        name: order
        for one in given
        for name, order in (one if isinstance(one, dict) else {one: "asc"}).items()
    }
    doc_id = f"_design/{str(body.get('ddoc', 'index')).removeprefix('_design/')}"
    name = str(body.get("name", "-".join(fields)))
    known = any((index["ddoc"], index["name"]) == (doc_id, name) for index in _indexes(database))
    if not known:
        view = {"map": {"fields": fields}, "reduce": "_count", "options": {"def": {"fields": given}}}
        content = {"language": "query", "views": {name: view}}
        tree = database.tree(doc_id)
        path = [tree.winner.key] if tree and not tree.deleted else []
        edit = Edit(id=doc_id, path=path, body=content, text=dumps(content)[1:-1])
        Writer(database, request.user).edit(edit)
        node.committed(database)
    return json_response({"result": "exists" if known else "created", "id": doc_id, "name": name})


def delete_index(request: Request, node: Node, database: Database, path: list[str]) -> Response:
    """Answer `DELETE /{db}/_index/{design document}/json/{name}`."""
    doc_id = f"_design/{path[0].removeprefix('_design/')}"
    tree = database.tree(doc_id)
    if tree is None or tree.deleted:
        raise missing()
    edit = Edit(id=doc_id, path=[tree.winner.key], body={}, text=b"", deleted=True)
    Writer(database, request.user).edit(edit)
    node.committed(database)
    return json_response({"ok": True})
