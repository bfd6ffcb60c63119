"""`/{db}/{id}` and its attachments."""

from __future__ import annotations

import re
from typing import Any

from tests.servers.couchdb.answers import find_revision, live, read_document
from tests.servers.couchdb.attachments import Sent, check_name, content_of, digest_text
from tests.servers.couchdb.database import Database, new_uuid
from tests.servers.couchdb.documents import (
    Edit,
    check_id,
    parse_document,
    shown_by,
    write_document,
)
from tests.servers.couchdb.editing import check_history
from tests.servers.couchdb.errors import Refusal, bad_request, conflict, invalid_rev, missing
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.jsontext import loads
from tests.servers.couchdb.multipart import read_related
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.revisions import Attachment, Key, Revision, Tree, parse_rev
from tests.servers.couchdb.writing import Writer

UNESCAPED = re.compile(rb"[^A-Za-z0-9_.:-]")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
ANOTHER_REV = "Document rev from request body and query string have different values"
NO_ATTACHMENT = "Document is missing attachment"
REFERER = "Referer header required."


def location(request: Request, *parts: str) -> str:
    """Return the address of a database, document or attachment."""
    path = "/".join(_encode(part) for part in parts)
    return f"http://{request.headers.get('host', 'localhost')}/{path}"


def _encode(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return UNESCAPED.sub(lambda found: b"%%%02X" % found[0][0], data).decode()


def get_document(request: Request, database: Database, doc_id: str) -> Response:
    """Answer `GET /{db}/{id}`."""
    if doc_id.startswith("_local/"):
        return _get_local(request, database, doc_id)
    return read_document(request, database, doc_id)


def _get_local(request: Request, database: Database, doc_id: str) -> Response:
    known = database.local.get(doc_id)
    if known is None or request.value("rev") is not None or request.value("open_revs") is not None:
        raise missing()
    number, body = known
    revision = Revision(0, str(number), None, body)
    text = write_document(doc_id, revision, shown_by(request)) + b"\n"
    return Response(200, text, {"ETag": f'"{revision.rev}"'})


def put_document(request: Request, node: Node, database: Database, doc_id: str) -> Response:
    """Answer `PUT /{db}/{id}`."""
    check_id(doc_id, database)
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/related;"):
        value, take = read_related(kind, request.body())
    else:
        value, take = request.json(), None
    edit = parse_document(value, database, node.config.limits, known_id=doc_id, take=take)
    _name_base(request, edit)
    return _write(request, node, database, edit)


def _write(request: Request, node: Node, database: Database, edit: Edit) -> Response:
    writer = Writer(database, request.user)
    if request.value("new_edits") == "false":
        check_history(edit)
        rev = writer.replicate(edit)
    else:
        rev = writer.edit(edit)
    node.committed(database)
    if request.value("batch") == "ok":
        return json_response({"ok": True, "id": edit.id}, 202)
    return json_response(
        {"ok": True, "id": edit.id, "rev": rev},
        200 if edit.deleted else 201,
        ETag=f'"{rev}"',
        Location=location(request, database.name, edit.id),
    )


def _name_base(request: Request, edit: Edit) -> None:
    """Take the revision from the query or from If-Match."""
    named = request.value("rev") or request.headers.get("if-match", "").strip('"') or None
    if request.value("rev") == "":
        raise invalid_rev()
    if named is None:
        return
    key = parse_rev(named)
    if key is None:
        raise invalid_rev()
    if edit.path and edit.path[0] != key:
        raise bad_request(ANOTHER_REV)
    edit.path = edit.path or [key]


def post_document(request: Request, node: Node, database: Database) -> Response:
    """Answer `POST /{db}`."""
    request.want_json()
    value = request.json()
    if isinstance(value, dict) and "_id" not in value:
        value = {"_id": new_uuid(), **value}
    edit = parse_document(value, database, node.config.limits)
    check_id(edit.id, database)
    response = _write(request, node, database, edit)
    response.headers.pop("ETag", None)
    return response


def delete_document(request: Request, node: Node, database: Database, doc_id: str) -> Response:
    """Answer `DELETE /{db}/{id}`."""
    if doc_id.startswith("_local/"):
        if doc_id not in database.local:
            raise missing()
        edit = Edit(id=doc_id, body={}, text=b"", deleted=True)
    else:
        tree = database.tree(doc_id)
        if tree is None:
            raise missing()
        live(tree.winner)
        edit = Edit(id=doc_id, body={}, text=b"", deleted=True)
        _name_base(request, edit)
    rev = Writer(database, request.user).edit(edit)
    node.committed(database)
    return json_response({"ok": True, "id": doc_id, "rev": rev}, ETag=f'"{rev}"')


def copy_document(request: Request, node: Node, database: Database, doc_id: str) -> Response:
    """Answer `COPY /{db}/{id}`."""
    target, _, query = request.headers.get("destination", "").partition("?rev=")
    if not target:
        raise bad_request("Destination header is mandatory for COPY.")
    _, revision, _ = find_revision(request, database, doc_id)
    value = loads(b"{" + (revision.body or b"") + b"}")
    key = parse_rev(query)
    edit = Edit(
        id=check_id(target, database), path=[key] if key else [], body=value, text=revision.body or b""
    )
    return _write(request, node, database, edit)


def post_to_document(*_: Any) -> Response:
    """Answer `POST /{db}/{id}`, which is for forms of a browser."""
    raise bad_request(REFERER)


# --- attachments


def get_attachment(request: Request, database: Database, doc_id: str, name: str) -> Response:
    """Answer `GET /{db}/{id}/{name}`."""
    _, revision, _ = find_revision(request, database, doc_id)
    attachment = _attachment(revision, name)
    headers = {"Content-Type": attachment.content_type, "ETag": f'"{digest_text(attachment)}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(304, b"", {"ETag": headers["ETag"], "Cache-Control": "", "Content-Type": ""})
    if attachment.encoding:
        headers["Accept-Ranges"] = "none"
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(200, content_of(attachment), headers)
        return Response(200, attachment.data, {**headers, "Content-Encoding": attachment.encoding})
    headers["Accept-Ranges"] = "bytes"
    found = RANGE.fullmatch(request.headers.get("range", ""))
    return _part(attachment, found, headers) if found else Response(200, attachment.data, headers)


def _part(attachment: Attachment, found: re.Match[str], headers: dict[str, str]) -> Response:
    size = len(attachment.data)
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    else:
        first, last = max(size - int(found[2] or 0), 0), size - 1
    if first > last:
        raise Refusal(416, "requested_range_not_satisfiable", "Requested range not satisfiable")
    return Response(
        206, attachment.data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    )


def _attachment(revision: Revision, name: str) -> Attachment:
    found = next((one for one in revision.attachments if one.name == name), None)
    if found is None:
        raise missing(NO_ATTACHMENT)
    return found


def put_attachment(request: Request, node: Node, database: Database, doc_id: str, name: str) -> Response:
    """Answer `PUT /{db}/{id}/{name}`."""
    check_id(doc_id, database)
    if doc_id.startswith("_local/"):
        raise bad_request("_local documents do not accept attachments.")
    check_name(name)
    kind = request.headers.get("content-type", "application/octet-stream")
    content = request.body()
    entries: dict[str, Any] = {name: {"follows": True, "content_type": kind}}
    revision = _base_of(request, database.tree(doc_id))
    entries |= {one.name: {"stub": True} for one in _others(revision, name)}
    sent = Sent(entries, node.config.limits.attachment, lambda _: content)
    rev = _change_files(request, node, database, doc_id, revision, sent)
    where = location(request, database.name, doc_id, name)
    return json_response({"ok": True, "id": doc_id, "rev": rev}, 201, Location=where)


def delete_attachment(request: Request, node: Node, database: Database, doc_id: str, name: str) -> Response:
    """Answer `DELETE /{db}/{id}/{name}`."""
    tree = database.tree(doc_id)
    if tree is None:
        raise missing()
    revision = _base_of(request, tree)
    if revision is not None:
        _attachment(revision, name)
    sent = Sent({one.name: {"stub": True} for one in _others(revision, name)}, 0)
    rev = _change_files(request, node, database, doc_id, revision, sent)
    return json_response({"ok": True, "id": doc_id, "rev": rev})


def _base_of(request: Request, tree: Tree | None) -> Revision | None:
    """Return the revision whose attachments a request changes; None for a document that is to be made."""
    key = _named(request)
    if tree is None or (key is None and tree.deleted):
        return None
    revision = tree.revisions.get(key) if key else None
    if revision is None or revision.body is None:
        raise conflict()
    return revision


def _named(request: Request) -> Key | None:
    named = request.value("rev") or request.headers.get("if-match", "").strip('"')
    return parse_rev(named)


def _others(revision: Revision | None, name: str) -> list[Attachment]:
    return [one for one in revision.attachments if one.name != name] if revision else []


def _change_files(
    request: Request, node: Node, database: Database, doc_id: str, revision: Revision | None, sent: Sent
) -> str:
    text = (revision.body or b"") if revision else b""
    path = [revision.key] if revision else []
    edit = Edit(id=doc_id, path=path, body=loads(b"{" + text + b"}"), text=text, sent=sent)
    rev = Writer(database, request.user).edit(edit)
    node.committed(database)
    return rev
