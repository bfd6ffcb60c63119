"""The pages of the server itself: welcome, databases, sessions, settings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any
from urllib.parse import parse_qsl

from tests.servers.couchdb.auth import check_server_admin
from tests.servers.couchdb.database import new_uuid
from tests.servers.couchdb.errors import Refusal, bad_request, missing, unauthorized
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.view_arguments import ABSENT, Arguments, read_arguments

VERSION = "3.5.0"
FEATURES = ["quickjs", "access-ready", "partitioned", "pluggable-storage-engines", "reshard", "scheduler"]
INFOS_AT_ONCE = 100
UUIDS_AT_ONCE = 1000
NO_STORE = {"Cache-Control": "no-cache"}


def welcome(request: Request, node: Node) -> Response:
    """Answer `GET /`."""
    del request
    vendor = {"name": "The Apache Software Foundation"}
    return json_response(
        {
            "couchdb": "Welcome",
            "version": VERSION,
            "git_sha": "stand-in",
            "uuid": node.uuid,
            "features": FEATURES,
            "vendor": vendor,
        }
    )


def up(request: Request, node: Node) -> Response:
    """Answer `GET /_up`."""
    del request
    mode = node.config.maintenance_mode
    if mode:
        return json_response({"status": "maintenance_mode" if mode == "true" else mode}, 404)
    return json_response({"status": "ok", "seeds": {}})


def all_dbs(request: Request, node: Node) -> Response:
    """Answer `GET /_all_dbs`."""
    _check_may_list(request, node)
    if request.value("keys") is not None:
        raise Refusal(500, "function_clause", "no clause for keys")
    names = _names(node, read_arguments(request))
    return _chunked(dumps(names) + b"\n", node)


def _check_may_list(request: Request, node: Node) -> None:
    if node.config.get("chttpd", "admin_only_all_dbs") != "false":
        check_server_admin(request.user)


def _names(node: Node, arguments: Arguments) -> list[str]:
    names = sorted(node.databases)
    low, high = arguments.low, arguments.high
    first = 0 if low is ABSENT else bisect_left(names, str(low))
    last = len(names) if high is ABSENT else bisect_right(names, str(high))
    chosen = names[first:last]
    if arguments.descending:
        chosen.reverse()
    if not arguments.inclusive_end and chosen and chosen[-1] == arguments.endkey:
        chosen.pop()
    end = None if arguments.limit is None else arguments.skip + arguments.limit
    return chosen[arguments.skip : end]


def _chunked(body: bytes, node: Node) -> Response:
    return Response(200, iter([body]), {"ETag": f'"{len(node.databases):x}"'})


def dbs_info(request: Request, node: Node) -> Response:
    """Answer `GET` and `POST /_dbs_info`."""
    _check_may_list(request, node)
    if request.method == "GET":
        names: list[Any] = list(_names(node, read_arguments(request)))
        return _chunked(dumps([_info(node, name) for name in names]) + b"\n", node)
    names = request.json_object().get("keys", ABSENT)
    if names is ABSENT:
        raise bad_request("`keys` member must exist.")
    if not isinstance(names, list):
        raise bad_request("`keys` member must be an array.")
    if len(names) > INFOS_AT_ONCE:
        raise bad_request("too_many_keys")
    return Response(200, iter([dumps([_info(node, name) for name in names]) + b"\n"]))


def _info(node: Node, name: Any) -> dict[str, Any]:
    database = node.databases.get(name) if isinstance(name, str) else None
    return {"key": name, "info": database.info()} if database else {"key": name, "error": "not_found"}


def uuids(request: Request, node: Node) -> Response:
    """Answer `GET /_uuids`."""
    del node
    count = int(request.value("count", "1") or 1)
    if count > UUIDS_AT_ONCE:
        raise bad_request("count parameter too large")
    answer = json_response({"uuids": [new_uuid() for _ in range(count)]}, ETag=f'"{new_uuid()}"')
    answer.headers |= NO_STORE
    return answer


def active_tasks(request: Request, node: Node) -> Response:
    """Answer `GET /_active_tasks`."""
    del node
    check_server_admin(request.user)
    return json_response([])


def membership(request: Request, node: Node) -> Response:
    """Answer `GET /_membership`."""
    del node
    check_server_admin(request.user)
    return json_response({"all_nodes": ["couchdb@127.0.0.1"], "cluster_nodes": ["couchdb@127.0.0.1"]})


def replicate(request: Request, node: Node) -> Response:
    """Answer `_replicate`, which the tests' CouchDB has not."""
    del node
    if not request.content:
        raise bad_request("Missing request body")
    raise Refusal(501, "not_implemented", "The tests' CouchDB does not replicate by itself.")


# --- sessions


def get_session(request: Request, node: Node) -> Response:
    """Answer `GET /_session`."""
    del node
    user = request.user
    if request.is_true("basic") and user.name is None and not user.is_admin:
        raise unauthorized("Please login.")
    info: dict[str, Any] = {"authentication_handlers": ["cookie", "default"]}
    if user.handler:
        info["authenticated"] = user.handler
    context = {"name": user.name, "roles": list(user.roles)}
    return json_response({"ok": True, "userCtx": context, "info": info})


def post_session(request: Request, node: Node) -> Response:
    """Answer `POST /_session`."""
    name, password = _credentials(request)
    try:
        user = node.auth.log_in(name, password, request.address)
    except Refusal as refusal:
        if refusal.error == "unauthorized":
            refusal.headers = {"Set-Cookie": node.auth.cookie_header()}
        raise
    answer = json_response({"ok": True, "name": name, "roles": list(user.roles)})
    answer.headers["Set-Cookie"] = node.auth.cookie(name)
    return answer


def _credentials(request: Request) -> tuple[str, str]:
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        given: dict[str, Any] = dict(parse_qsl(request.body().decode(), keep_blank_values=True))
    else:
        given = request.json_object()
    name = given.get("name", given.get("username"))
    if name is None:
        raise bad_request("request body must contain a username")
    return str(name), str(given.get("password", ""))


def delete_session(request: Request, node: Node) -> Response:
    """Answer `DELETE /_session`."""
    del request
    answer = json_response({"ok": True})
    answer.headers["Set-Cookie"] = node.auth.cookie_header()
    return answer


# --- settings


def config(request: Request, node: Node) -> Response:
    """Answer `/_node/{node}/_config/{section}/{key}` and the levels above it."""
    check_server_admin(request.user)
    match request.path[2:]:
        case ["_config"]:
            return json_response(node.config.sections)
        case ["_config", section]:
            return json_response(node.config.sections.get(section, {}))
        case ["_config", section, key]:
            return _setting(request, node, section, key)
    raise missing()


def _setting(request: Request, node: Node, section: str, key: str) -> Response:
    known = key in node.config.sections.get(section, {})
    if request.method == "PUT":
        return json_response(node.config.set(section, key, str(request.json())))
    if not known:
        raise missing("unknown_config_value")
    if request.method == "DELETE":
        return json_response(node.config.set(section, key, None))
    return json_response(node.config.get(section, key))


# --- faults


def failpoints(request: Request, node: Node) -> Response:
    """Answer `/_failpoints`, which no CouchDB has."""
    check_server_admin(request.user)
    if request.method == "PUT":
        node.failpoints.set(request.json())
    elif request.method == "DELETE":
        node.failpoints.set([])
    return json_response(node.failpoints.left())
