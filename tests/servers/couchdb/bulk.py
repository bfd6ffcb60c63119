"""`_bulk_docs`, `_bulk_get`, `_revs_diff`, `_missing_revs`, `_purge` and `_purged_infos`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from tests.servers.couchdb.answers import document_part, error_part, open_revisions
from tests.servers.couchdb.auth import check_server_admin
from tests.servers.couchdb.database import Database, new_uuid
from tests.servers.couchdb.documents import Edit, Shown, check_id, parse_document, shown_by, write_document
from tests.servers.couchdb.editing import check_history
from tests.servers.couchdb.errors import Refusal, bad_request, function_clause, invalid_rev
from tests.servers.couchdb.http import Request, Response, json_response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.node import Node
from tests.servers.couchdb.revisions import Key, Revision, parse_rev
from tests.servers.couchdb.writing import Writer

DOCUMENTS_PURGED = 100
REVISIONS_PURGED = 1000
WHOLE = ("missing_stub",)  # errors of a document that refuse all others of its request


def bulk_docs(request: Request, node: Node, database: Database) -> Response:
    """Answer `POST /{db}/_bulk_docs`."""
    body = request.json_object()
    if "docs" not in body:
        raise bad_request("POST body must include `docs` parameter.")
    docs = body["docs"]
    if not isinstance(docs, list):
        raise bad_request("`docs` parameter must be an array.")
    new_edits = body.get("new_edits", True)
    if not isinstance(new_edits, bool):
        raise function_clause()
    edits = [_parse(value, node, database, new_edits=new_edits) for value in docs]
    if body.get("all_or_nothing") is True:
        return json_response([_unsupported(edit) for edit in edits], 417)
    _check_stubs(database, edits)
    writer = Writer(database, request.user)
    rows = _edit_all(edits, writer) if new_edits else _replicate_all(edits, writer)
    node.committed(database)
    return json_response(rows, 201)


def _parse(value: Any, node: Node, database: Database, *, new_edits: bool) -> Edit:
    edit = parse_document(value, database, node.config.limits)
    edit.id = edit.id or new_uuid()
    check_id(edit.id, database)
    if not new_edits:
        check_history(edit)
    return edit


def _unsupported(edit: Edit) -> dict[str, Any]:
    reason = "all_or_nothing is not supported"
    return {"id": edit.id, "rev": "0-", "error": "not_implemented", "reason": reason}


def _check_stubs(database: Database, edits: list[Edit]) -> None:
    """Refuse the whole request where a stub names nothing."""
    for edit in edits:
        if edit.sent and edit.sent.stubs:
            tree = database.tree(edit.id)
            named = tree.revisions.get(edit.path[0]) if tree and edit.path else None
            near = [named, named.parent if named else None]
            known = [one for revision in near if revision for one in revision.attachments]
            if tree and len(edit.path) > 1 and (parent := tree.revisions.get(edit.path[1])):
                known += parent.attachments
            edit.sent.resolve(edit.id, 0, known)


def _edit_all(edits: list[Edit], writer: Writer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for edit in edits:
        try:
            rows.append({"ok": True, "id": edit.id, "rev": writer.edit(edit)})
        except Refusal as refusal:
            if refusal.error in WHOLE:
                raise
            rows.append({"id": edit.id, "error": refusal.error, "reason": refusal.reason})
    return rows


def _replicate_all(edits: list[Edit], writer: Writer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for edit in edits:
        try:
            writer.replicate(edit)
        except Refusal as refusal:
            rev = f"{edit.path[0][0]}-{edit.path[0][1]}"
            rows.append({"id": edit.id, "rev": rev, "error": refusal.error, "reason": refusal.reason})
    return rows


# --- _bulk_get


def bulk_get(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_bulk_get`."""
    body = request.json_object()
    if "docs" not in body:
        raise bad_request("Missing JSON list of 'docs'.")
    docs = body["docs"]
    if not isinstance(docs, list) or any(
        isinstance(one, dict) and "id" in one and not isinstance(one["id"], str) for one in docs
    ):
        raise function_clause()
    shown = shown_by(request)
    shown = Shown(
        revs=shown.revs, attachments=shown.attachments, since=shown.since, encoding_info=shown.encoding_info
    )
    latest = request.is_true("latest")
    results = [_Result(database, one, shown, latest=latest) for one in docs]
    for kind in ("multipart/mixed", "multipart/related"):
        if request.names(kind):
            return _as_parts(kind, results)
    return Response(200, b'{"results":[' + b",".join(one.row() for one in results) + b"]}\n")


def _as_parts(kind: str, results: list[_Result]) -> Response:
    boundary = os.urandom(16).hex()
    parts = [part for one in results for part in one.parts()]
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
    headers = {"Content-Type": f'{kind}; boundary="{boundary}"', "Cache-Control": ""}
    return Response(200, iter([body + b"--%b--" % boundary.encode()]), headers)


class _Result:
    """The result of one entry of `_bulk_get`."""

    def __init__(self, database: Database, entry: Any, shown: Shown, *, latest: bool) -> None:
        self._id: str | None = None
        self._shown = shown
        self._error: dict[str, Any] | None = None
        self._found: list[Revision | Key] = []
        try:
            self._find(database, entry, latest=latest)
        except Refusal as refusal:
            rev = entry.get("rev") if isinstance(entry, dict) and refusal.error != "illegal_docid" else None
            self._fail(rev, refusal.error, refusal.reason)

    def _find(self, database: Database, entry: Any, *, latest: bool) -> None:
        if not isinstance(entry, dict):
            return self._fail(None, "bad_request", "document must be a JSON object")
        if "id" not in entry:
            return self._fail(None, "bad_request", "document id missed")
        self._id = entry["id"]
        check_id(self._id)
        keys = None
        if "rev" in entry:
            key = parse_rev(entry["rev"])
            if key is None:
                raise invalid_rev()
            keys = (key,)
        since = entry.get("atts_since")
        if isinstance(since, list) and self._shown.attachments:
            known = tuple(key for key in map(parse_rev, since) if key)
            self._shown = Shown(revs=self._shown.revs, attachments=True, since=known)
        tree = None if entry["id"].startswith("_local/") else database.tree(entry["id"])
        self._found = open_revisions(tree, keys, latest=latest)
        if not self._found:
            self._fail("undefined", "not_found", "missing")
        return None

    def _fail(self, rev: Any, error: str, reason: str) -> None:
        self._error = {"id": self._id, "rev": rev, "error": error, "reason": reason}

    def row(self) -> bytes:
        """Return the entry of a JSON answer."""
        if self._error:
            docs = [dumps({"error": self._error})]
        else:
            docs = [self._document(one) for one in self._found]
        return b'{"id":%b,"docs":[%b]}' % (dumps(self._id), b",".join(docs))

    def _document(self, one: Revision | Key) -> bytes:
        if isinstance(one, Revision):
            return b'{"ok":%b}' % write_document(self._id or "", one, self._shown)
        return dumps({"error": self._missing(one)})

    def _missing(self, key: Key) -> dict[str, Any]:
        return {"id": self._id, "rev": f"{key[0]}-{key[1]}", "error": "not_found", "reason": "missing"}

    def parts(self) -> Iterator[bytes]:
        """Yield the parts of a multipart answer."""
        if self._error:
            yield error_part(dumps(self._error))
        for one in self._found:
            if isinstance(one, Revision):
                yield document_part(self._id or "", one, self._shown)
            else:
                yield error_part(dumps(self._missing(one)))


# --- revisions


def revs_diff(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_revs_diff`."""
    answer: dict[str, Any] = {}
    for doc_id, lost, ancestors in _missing(request, database):
        answer[doc_id] = {"missing": lost, **({"possible_ancestors": ancestors} if ancestors else {})}
    return json_response(answer)


def missing_revs(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_missing_revs`."""
    return json_response({"missing_revs": {doc_id: lost for doc_id, lost, _ in _missing(request, database)}})


def _missing(request: Request, database: Database) -> Iterator[tuple[str, list[str], list[str]]]:
    asked = [(doc_id, _keys(revs)) for doc_id, revs in request.json_object().items()]
    for doc_id, keys in asked:
        tree = database.tree(doc_id)
        lost = sorted(key for key in keys if tree is None or key not in tree.revisions)
        if lost:
            leaves = tree.leaves() if tree else []
            ancestors = [leaf.rev for leaf in leaves if leaf.generation < lost[-1][0]]
            yield doc_id, [f"{generation}-{digest}" for generation, digest in lost], ancestors


def _keys(revs: Any, wrong: Callable[[], Refusal] = function_clause) -> list[Key]:
    if not isinstance(revs, list):
        raise wrong()
    keys = [parse_rev(rev) for rev in revs]
    if None in keys:
        raise invalid_rev()
    return [key for key in keys if key]


# --- purging


def purge(request: Request, node: Node, database: Database) -> Response:
    """Answer `POST /{db}/_purge`."""
    check_server_admin(request.user)
    body = request.json_object()
    asked = {doc_id: _keys(revs, _no_list) for doc_id, revs in body.items()}
    if len(asked) > DOCUMENTS_PURGED:
        raise bad_request("Exceeded maximum number of documents.")
    if sum(map(len, asked.values())) > REVISIONS_PURGED:
        raise bad_request("Exceeded maximum number of revisions.")
    purged = {doc_id: database.purge(doc_id, keys, body[doc_id]) for doc_id, keys in asked.items()}
    node.committed(database)
    return json_response({"purge_seq": None, "purged": purged}, 201)


def _no_list() -> Refusal:
    return bad_request("Invalid list of revisions")


def purged_infos(database: Database) -> Response:
    """Answer `GET /{db}/_purged_infos`."""
    newest_first = reversed(database.purged)
    return json_response({"purged_infos": [{"id": doc_id, "revs": revs} for doc_id, revs in newest_first]})
