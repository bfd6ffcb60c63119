"""`/{db}` and its special pages."""

from __future__ import annotations

from typing import Any

from tests.servers.couchdb.auth import (
    check_security,
    check_server_admin,
    is_database_admin,
    no_majority,
)
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.errors import Refusal, bad_request, function_clause, missing, unauthorized
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.node import Node, whole_number
from tests.servers.couchdb.pages_documents import location

WITH_REV = "You tried to DELETE a database with a ?=rev parameter. Did you mean to DELETE a document instead?"
NOT_DATABASE_ADMIN = '{error,{forbidden,<<"You are not a db or server admin.">>}}'


def create(request: Request, node: Node, name: str) -> Response:
    """Answer `PUT /{db}`."""
    check_server_admin(request.user)
    q = whole_number(request.value("q"), "q")
    whole_number(request.value("n"), "n")
    partitioned = request.value("partitioned", "false")
    if partitioned not in ("true", "false"):
        raise bad_request("Invalid `partitioned` parameter")
    node.create(name, q=q, partitioned=partitioned == "true")
    return json_response({"ok": True}, 201, Location=location(request, name))


def delete(request: Request, node: Node, database: Database) -> Response:
    """Answer `DELETE /{db}`."""
    check_server_admin(request.user)
    if request.value("rev") is not None:
        raise bad_request(WITH_REV)
    node.delete(database.name)
    return json_response({"ok": True})


def ensure_full_commit(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_ensure_full_commit`."""
    request.want_json()
    return json_response({"ok": True, "instance_start_time": str(database.created)}, 201)


def compact(request: Request, database: Database, design: str | None = None) -> Response:
    """Answer `POST /{db}/_compact`."""
    if not is_database_admin(request.user, database):
        raise unauthorized("You are not a server or db admin.")
    request.want_json()
    if design is not None and database.tree(f"_design/{design}") is None:
        raise missing()
    if design is None:
        database.compact()
    return json_response({"ok": True}, 202)


def get_security(database: Database) -> Response:
    """Answer `GET /{db}/_security`."""
    return Response(200, database.security + b"\n")


def put_security(request: Request, database: Database) -> Response:
    """Answer `PUT /{db}/_security`."""
    value = request.json()
    if not is_database_admin(request.user, database):
        raise no_majority()
    check_security(value)
    database.set("security", dumps(value))
    return json_response({"ok": True})


def put_revs_limit(request: Request, database: Database) -> Response:
    """Answer `PUT /{db}/_revs_limit`."""
    value = request.json()
    if not is_database_admin(request.user, database):
        raise Refusal(500, "badmatch", NOT_DATABASE_ADMIN, ref=True)
    return _put_limit(database, "revs_limit", value)


def put_purged_infos_limit(request: Request, database: Database) -> Response:
    """Answer `PUT /{db}/_purged_infos_limit`."""
    return _put_limit(database, "purged_infos_limit", request.json())


def _put_limit(database: Database, name: str, value: Any) -> Response:
    if type(value) is not int or value < 1:
        raise function_clause()
    database.set(name, value)
    return json_response({"ok": True})
