"""Reads of single documents: which revision is meant, and the forms in which it is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import (
    Shown,
    files_wanted,
    meta_of,
    parse_revs,
    shown_by,
    write_document,
)
from tests.servers.couchdb.errors import invalid_rev, missing
from tests.servers.couchdb.http import Request, Response
from tests.servers.couchdb.jsontext import dumps, loads
from tests.servers.couchdb.revisions import Key, Revision, Tree, parse_rev

NO_CACHE_CONTROL = {"Cache-Control": ""}


def read_document(request: Request, database: Database, doc_id: str) -> Response:
    """Answer `GET /{db}/{id}`."""
    if (wanted := request.value("open_revs")) is not None:
        return _open_revs(request, database, doc_id, wanted)
    tree, revision, is_winner = find_revision(request, database, doc_id)
    shown = shown_by(request)
    meta = meta_of(tree, shown) if is_winner else []
    etag = f'"{revision.rev}"'
    headers = {} if meta else {"ETag": etag}
    if headers and request.headers.get("if-none-match") == etag:
        return Response(304, b"", {**headers, **NO_CACHE_CONTROL, "Content-Type": ""})
    if files_wanted(revision, shown) and request.accepts("multipart/related"):
        boundary = os.urandom(16).hex()
        text = write_document(doc_id, revision, replace(shown, follows=True), meta)
        body = b"".join(related_parts(boundary, text, revision, shown))
        kind = {"Content-Type": f'multipart/related; boundary="{boundary}"'}
        return Response(200, body, {**headers, **kind, **NO_CACHE_CONTROL})
    return Response(200, write_document(doc_id, revision, shown, meta) + b"\n", headers)


def find_revision(request: Request, database: Database, doc_id: str) -> tuple[Tree, Revision, bool]:
    """Return the revision that a request names, and whether it is the winner because none was named.

    Raises:
        Refusal: it is not there.
    """
    tree = database.tree(doc_id)
    named = request.value("rev")
    key = None if named is None else parse_rev(named)
    if named is not None and key is None:
        raise invalid_rev()
    if tree is None:
        raise missing()
    if key is None:
        return tree, live(tree.winner), True
    if request.is_true("latest"):
        leaves = tree.under(key)
        if not leaves:
            raise missing()
        return tree, live(leaves[0]), False
    revision = tree.revisions.get(key)
    if revision is None or revision.body is None:
        raise missing()
    return tree, revision, False


def live(revision: Revision) -> Revision:
    """Return a revision; refuse a tombstone."""
    if revision.deleted:
        raise missing("deleted")
    return revision


def open_revisions(tree: Tree | None, keys: tuple[Key, ...] | None, *, latest: bool) -> list[Revision | Key]:
    """Return revisions in their order, or their keys where they are not there; None names all leaves."""
    if tree is None:
        return list(keys or ())
    if keys is None:
        leaves = sorted(tree.leaves(), key=lambda leaf: leaf.key)
        return [*leaves]
    found: dict[Key, Revision] = {}
    lost: list[Key] = []
    for key in keys:
        known = tree.revisions.get(key)
        if latest and known is not None:
            found.update({leaf.key: leaf for leaf in tree.under(key)})
        elif known is not None and known.body is not None:
            found[key] = known
        else:
            lost.append(key)
    return [*(found[key] for key in sorted(found)), *sorted(lost)]


def _open_revs(request: Request, database: Database, doc_id: str, wanted: str) -> Response:
    keys = None if wanted == "all" else parse_revs(loads(wanted.encode()))
    tree = database.tree(doc_id)
    if tree is None and keys is None:
        raise missing()
    found = open_revisions(tree, keys, latest=request.is_true("latest"))
    shown = shown_by(request)
    if not request.accepts("multipart/mixed"):
        rows = [_row(doc_id, one, shown) for one in found]
        return Response(200, iter([b"[" + b",".join(rows) + b"]\n"]))
    boundary = os.urandom(16).hex()
    kind = {"Content-Type": f'multipart/mixed; boundary="{boundary}"', **NO_CACHE_CONTROL}
    return Response(200, iter([b"".join(_mixed(boundary, doc_id, found, shown))]), kind)


def _row(doc_id: str, one: Revision | Key, shown: Shown) -> bytes:
    if isinstance(one, Revision):
        return b'{"ok":%b}' % write_document(doc_id, one, shown)
    return dumps({"missing": f"{one[0]}-{one[1]}"})


def _mixed(boundary: str, doc_id: str, found: list[Revision | Key], shown: Shown) -> Iterator[bytes]:
    for one in found:
        yield b"--%b\r\n" % boundary.encode()
        if isinstance(one, Revision):
            yield document_part(doc_id, one, shown)
        else:
            yield error_part(dumps({"missing": f"{one[0]}-{one[1]}"}))
        yield b"\r\n"
    yield b"--%b--" % boundary.encode()


def document_part(doc_id: str, revision: Revision, shown: Shown) -> bytes:
    """Return a document as a part of a multipart body, with its attachments where they are wanted."""
    if not files_wanted(revision, shown):
        return b"Content-Type: application/json\r\n\r\n" + write_document(doc_id, revision, shown)
    inner = os.urandom(16).hex()
    text = write_document(doc_id, revision, replace(shown, follows=True))
    head = (
        f"X-Doc-Id: {doc_id}\r\nX-Rev-Id: {revision.rev}\r\n"
        f'Content-Type: multipart/related; boundary="{inner}"\r\n\r\n'
    )
    return head.encode() + b"".join(related_parts(inner, text, revision, shown))


def error_part(text: bytes) -> bytes:
    """Return an error as a part of a multipart body."""
    return b'Content-Type: application/json; error="true"\r\n\r\n' + text


def related_parts(boundary: str, text: bytes, revision: Revision, shown: Shown) -> Iterator[bytes]:
    """Yield a document and the attachments that follow it."""
    yield f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode() + text
    for one in files_wanted(revision, shown):
        encoding = f"Content-Encoding: {one.encoding}\r\n" if one.encoding else ""
        head = (
            f'\r\n--{boundary}\r\nContent-Disposition: attachment; filename="{one.name}"\r\n'
            f"Content-Type: {one.content_type}\r\nContent-Length: {len(one.data)}\r\n{encoding}\r\n"
        )
        yield head.encode() + one.data
    yield f"\r\n--{boundary}--".encode()
