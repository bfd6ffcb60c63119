"""Which page a request is for, and which methods it takes."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.couchdb import (
    all_docs,
    bulk,
    find,
    pages_database,
    pages_documents,
    pages_server,
    views,
)
from tests.servers.couchdb.auth import check_member, check_server_admin
from tests.servers.couchdb.changes import get_changes
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.db_updates import db_updates
from tests.servers.couchdb.errors import NO_DATABASE, Refusal, bad_request, missing, not_allowed
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.node import Node

ServerPage = Callable[[Request, Node], Response]
DatabasePage = Callable[[Request, Node, Database], Response]

# The methods as CouchDB lists them, and the function of each.
SERVER_PAGES: dict[str, tuple[str, dict[str, ServerPage]]] = {
    "_up": ("GET,HEAD", {"GET": pages_server.up}),
    "_all_dbs": ("GET,HEAD", {"GET": pages_server.all_dbs}),
    "_dbs_info": ("GET,HEAD,POST", {"GET": pages_server.dbs_info, "POST": pages_server.dbs_info}),
    "_db_updates": ("GET", {"GET": db_updates}),
    "_uuids": ("GET", {"GET": pages_server.uuids}),
    "_active_tasks": ("GET,HEAD", {"GET": pages_server.active_tasks}),
    "_membership": ("GET,HEAD", {"GET": pages_server.membership}),
    "_replicate": ("POST", {"GET": pages_server.replicate, "POST": pages_server.replicate}),
    "_session": (
        "GET,HEAD,POST,DELETE",
        {
            "GET": pages_server.get_session,
            "POST": pages_server.post_session,
            "DELETE": pages_server.delete_session,
        },
    ),
    "_node": (
        "GET,PUT,DELETE",
        dict.fromkeys(("GET", "PUT", "DELETE"), pages_server.config),
    ),
    "_failpoints": ("GET,PUT,DELETE", dict.fromkeys(("GET", "PUT", "DELETE"), pages_server.failpoints)),
}

DATABASE_PAGES: dict[str, tuple[str, dict[str, DatabasePage]]] = {
    "_changes": ("GET,POST,HEAD", dict.fromkeys(("GET", "POST"), get_changes)),
    "_all_docs": (
        "GET,HEAD,POST",
        dict.fromkeys(("GET", "POST"), lambda request, _, database: all_docs.all_docs(request, database)),
    ),
    "_design_docs": (
        "GET,HEAD,POST",
        dict.fromkeys(("GET", "POST"), lambda request, _, database: all_docs.design_docs(request, database)),
    ),
    "_local_docs": (
        "GET,HEAD,POST",
        dict.fromkeys(("GET", "POST"), lambda request, _, database: all_docs.local_docs(request, database)),
    ),
    "_bulk_docs": ("POST", {"POST": bulk.bulk_docs}),
    "_bulk_get": ("POST", {"POST": lambda request, _, database: bulk.bulk_get(request, database)}),
    "_revs_diff": ("POST", {"POST": lambda request, _, database: bulk.revs_diff(request, database)}),
    "_missing_revs": ("POST", {"POST": lambda request, _, database: bulk.missing_revs(request, database)}),
    "_purge": ("POST", {"POST": bulk.purge}),
    "_purged_infos": ("GET", {"GET": lambda _request, _node, database: bulk.purged_infos(database)}),
    "_purged_infos_limit": (
        "GET,PUT",
        {
            "GET": lambda _request, _node, database: json_response(database.purged_infos_limit),
            "PUT": lambda request, _, database: pages_database.put_purged_infos_limit(request, database),
        },
    ),
    "_revs_limit": (
        "GET,PUT",
        {
            "GET": lambda _request, _node, database: json_response(database.revs_limit),
            "PUT": lambda request, _, database: pages_database.put_revs_limit(request, database),
        },
    ),
    "_security": (
        "GET,PUT",
        {
            "GET": lambda _request, _node, database: pages_database.get_security(database),
            "PUT": lambda request, _, database: pages_database.put_security(request, database),
        },
    ),
    "_compact": ("POST", {"POST": lambda request, _, database: pages_database.compact(request, database)}),
    "_view_cleanup": (
        "POST",
        {"POST": lambda _request, _node, _database: json_response({"ok": True}, 202)},
    ),
    "_ensure_full_commit": (
        "POST",
        {"POST": lambda request, _, database: pages_database.ensure_full_commit(request, database)},
    ),
    "_find": ("POST", {"POST": lambda request, _, database: find.find(request, database)}),
    "_index": ("GET,POST", {"GET": find.list_indexes, "POST": find.create_index}),
}

DATABASE_METHODS = "DELETE,GET,HEAD,POST"
DOCUMENT_METHODS = "DELETE,GET,HEAD,POST,PUT,COPY"
ATTACHMENT_METHODS = "GET,HEAD,PUT,DELETE"
FOR_ADMINS = {"_all_docs", "_changes"}  # of `_users`
INVALID_LOCAL = "Invalid _local document id."


def route(request: Request, node: Node) -> Response:
    """Answer a request."""
    if not request.path:
        return _dispatch(request, "GET,HEAD", {"GET": pages_server.welcome}, node)
    name = request.path[0]
    if name in SERVER_PAGES:
        methods, pages = SERVER_PAGES[name]
        return _dispatch(request, methods, pages, node)
    return _route_database(request, node, name)


def _dispatch(request: Request, methods: str, pages: dict[str, ServerPage], node: Node) -> Response:
    if request.method not in pages:
        raise not_allowed(methods)
    return pages[request.method](request, node)


def _route_database(request: Request, node: Node, name: str) -> Response:
    rest = request.path[1:]
    if not rest and request.method == "PUT":
        return pages_database.create(request, node, name)
    _check_mode(node, rest)
    if name not in node.databases:
        raise missing(NO_DATABASE)
    database = node.database(name)
    if name == "_users" and rest and rest[0] in FOR_ADMINS:
        check_server_admin(request.user)
    if rest or request.method != "DELETE":
        check_member(request.user, database)
    if not rest:
        return _database(request, node, database)
    if rest[0] in DATABASE_PAGES:
        return _database_page(request, node, database, rest)
    if rest[0] == "_partition" and len(rest) > 1:
        return _partition(request, database, rest[1], rest[2:])
    return _route_document(request, node, database, rest)


def _check_mode(node: Node, rest: list[str]) -> None:
    if node.config.maintenance_mode == "true":
        error = "case_clause" if rest[:1] == ["_purge"] else "internal_server_error"
        raise Refusal(500, error, "No DB shards could be opened.", ref=True)


def _database(request: Request, node: Node, database: Database) -> Response:
    match request.method:
        case "GET":
            return json_response(database.info())
        case "POST":
            return pages_documents.post_document(request, node, database)
        case "DELETE":
            return pages_database.delete(request, node, database)
    raise not_allowed(DATABASE_METHODS)


def _database_page(request: Request, node: Node, database: Database, rest: list[str]) -> Response:
    if rest == ["_all_docs", "queries"]:
        return all_docs.all_docs_queries(request, database)
    if rest[0] == "_compact" and len(rest) > 1:
        return pages_database.compact(request, database, rest[1])
    if rest[0] == "_index" and request.method == "DELETE":
        return find.delete_index(request, node, database, rest[1:])
    methods, pages = DATABASE_PAGES[rest[0]]
    if request.method not in pages:
        raise not_allowed(methods)
    return pages[request.method](request, node, database)


def _partition(request: Request, database: Database, partition: str, rest: list[str]) -> Response:
    if rest == ["_all_docs"]:
        return all_docs.partition_docs(request, database, partition)
    if not rest:
        return json_response(all_docs.partition_info(database, partition))
    raise missing()


def _route_document(request: Request, node: Node, database: Database, rest: list[str]) -> Response:
    doc_id, names = rest[0], rest[1:]
    if doc_id == "_local" and not names:
        raise bad_request(INVALID_LOCAL)
    if doc_id in ("_design", "_local") and names:
        doc_id, names = f"{doc_id}/{names[0]}", names[1:]
    elif doc_id.startswith("_design/") and request.method == "GET":
        where = pages_documents.location(request, database.name, "_design", doc_id.removeprefix("_design/"))
        return Response(301, b"", {"Location": where, "Content-Type": "", "Cache-Control": ""})
    if doc_id.startswith("_design/") and len(names) == 2 and names[0] == "_view":
        return views.get_view(request, database, doc_id.removeprefix("_design/"), names[1])
    if names:
        return _attachment(request, node, database, doc_id, "/".join(names))
    return _document(request, node, database, doc_id)


def _document(request: Request, node: Node, database: Database, doc_id: str) -> Response:
    match request.method:
        case "GET":
            return pages_documents.get_document(request, database, doc_id)
        case "PUT":
            return pages_documents.put_document(request, node, database, doc_id)
        case "DELETE":
            return pages_documents.delete_document(request, node, database, doc_id)
        case "COPY":
            return pages_documents.copy_document(request, node, database, doc_id)
        case "POST":
            return pages_documents.post_to_document()
    raise not_allowed(DOCUMENT_METHODS)


def _attachment(request: Request, node: Node, database: Database, doc_id: str, name: str) -> Response:
    match request.method:
        case "GET":
            return pages_documents.get_attachment(request, database, doc_id, name)
        case "PUT":
            return pages_documents.put_attachment(request, node, database, doc_id, name)
        case "DELETE":
            return pages_documents.delete_attachment(request, node, database, doc_id, name)
    raise not_allowed(ATTACHMENT_METHODS)
