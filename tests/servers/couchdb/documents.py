"""Documents as JSON: how they are read, with the members that are CouchDB's, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.servers.couchdb.attachments import Sent, Take, describe
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.errors import Refusal, bad_request, illegal_id, invalid_rev
from tests.servers.couchdb.http import Request
from tests.servers.couchdb.jsontext import dumps, loads
from tests.servers.couchdb.revisions import Attachment, Key, Revision, Tree, parse_rev

READ_BACK = {"_revs_info", "_conflicts", "_deleted_conflicts", "_local_seq"}  # sent back, they mean nothing
RESERVED = ("_design/", "_local/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most bytes of a document and of an attachment."""

    document: float = 8_000_000
    attachment: float = 2**30


@dataclass(slots=True, kw_only=True)
class Edit:
    """A document as a client sent it.

    Attributes:
        id: empty where none was sent.
        path: the revision that is named, and its ancestors; with `new_edits=false` the new revision.
        body: the members that are not CouchDB's.
        text: their JSON text without braces.
        deleted: whether it is a tombstone.
        sent: its attachments.
        local_rev: the `_rev` of a local document.
    """

    id: str = ""
    path: list[Key] = field(default_factory=list)
    body: dict[str, Any]
    text: bytes
    deleted: bool = False
    sent: Sent | None = None


def check_id(doc_id: object, database: Database | None = None) -> str:
    """Return an id; refuse a value that no id may have."""
    if not isinstance(doc_id, str):
        raise illegal_id("Document id must be a string")
    if not doc_id:
        raise illegal_id("Document id must not be empty")
    if any("\udc80" <= letter <= "\udcff" for letter in doc_id):
        raise illegal_id("Document id must be valid UTF-8")
    if doc_id in RESERVED:
        raise illegal_id(f"Illegal document id `{doc_id}`")
    if doc_id.startswith("_") and not doc_id.startswith(RESERVED):
        raise illegal_id("Only reserved document ids may start with underscore.")
    if database is not None and database.partitioned and not doc_id.startswith("_"):
        _check_partition(doc_id)
    return doc_id


def _check_partition(doc_id: str) -> None:
    partition, colon, rest = doc_id.partition(":")
    if not colon:
        raise illegal_id("Doc id must be of form partition:id")
    if not partition:
        raise Refusal(400, "illegal_partition", "Partition must not be empty")
    if not rest:
        raise illegal_id("Document id must not be empty")


def parse_document(
    value: Any, database: Database, limits: Limits, *, known_id: str = "", take: Take | None = None
) -> Edit:
    """Return the edit that a JSON value stands for.

    Args:
        value: the JSON value.
        database: for which it is.
        limits: how large it may be.
        known_id: the id that the path names; `_id` does not count then.
        take: returns the content of an attachment that follows.

    Raises:
        Refusal: it is not a document.
    """
    if not isinstance(value, dict):
        raise bad_request("Document must be a JSON object")
    edit = Edit(id=known_id, body={}, text=b"")
    rev: Key | None = None
    revisions: list[Key] = []
    for name, member in value.items():
        if not name.startswith("_"):
            edit.body[name] = member
        elif name == "_id":
            edit.id = known_id or check_id(member, database)
        elif name == "_rev":
            rev = _rev(member)
        elif name == "_deleted" and isinstance(member, bool):
            edit.deleted = member
        elif name == "_revisions" and isinstance(member, dict):
            revisions = _revisions(member)
        elif name == "_attachments" and isinstance(member, dict):
            edit.sent = Sent(member, limits.attachment, take)
        elif name not in READ_BACK:
            raise Refusal(400, "doc_validation", f"Bad special document member: {name}")
    edit.path = revisions or ([rev] if rev else [])
    edit.text = dumps(edit.body)[1:-1]
    if len(edit.text) + 2 > limits.document:
        raise Refusal(413, "document_too_large", "" if known_id else edit.id)
    return edit


def _rev(value: Any) -> Key:
    key = parse_rev(value)
    if key is None:
        raise invalid_rev()
    return key


def _revisions(value: dict[str, Any]) -> list[Key]:
    start, ids = value.get("start"), value.get("ids")
    if not isinstance(start, int) or not isinstance(ids, list):
        raise Refusal(400, "doc_validation", "Bad special document member: _revisions")
    return [(start - number, str(digest)) for number, digest in enumerate(ids)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The parts of a document that a reader asks for.

    Attributes:
        revs: `_revisions`.
        revs_info: `_revs_info`.
        conflicts: `_conflicts`.
        deleted_conflicts: `_deleted_conflicts`.
        local_seq: `_local_seq`.
        attachments: the attachments' content, inline.
        since: only of those that the first known one of these revisions has not; None is all.
        encoding_info: how they are compressed.
        follows: their content follows in a multipart body.
    """

    revs: bool = False
    revs_info: bool = False
    conflicts: bool = False
    deleted_conflicts: bool = False
    local_seq: bool = False
    attachments: bool = False
    since: tuple[Key, ...] | None = None
    encoding_info: bool = False
    follows: bool = False


def shown_by(request: Request) -> Shown:
    """Return the parts that a request's query asks for."""
    meta = request.is_true("meta")
    since = request.value("atts_since")
    return Shown(
        revs=request.is_true("revs"),
        revs_info=meta or request.is_true("revs_info"),
        conflicts=meta or request.is_true("conflicts"),
        deleted_conflicts=meta or request.is_true("deleted_conflicts"),
        local_seq=request.is_true("local_seq"),
        attachments=request.is_true("attachments") or since is not None,
        since=None if since is None else parse_revs(loads(since.encode())),
        encoding_info=request.is_true("att_encoding_info"),
    )


def parse_revs(value: Any) -> tuple[Key, ...]:
    """Return the keys of a list of revisions."""
    return tuple(_rev(one) for one in value)


def meta_of(tree: Tree, shown: Shown) -> list[tuple[str, Any]]:
    """Return the members that tell about the document and not about the revision; the winner has them."""
    winner, *others = tree.leaves()
    meta: list[tuple[str, Any]] = []
    if shown.revs_info:
        meta.append(("_revs_info", [_status(revision) for revision in winner.path()]))
    if shown.conflicts and (live := [leaf.rev for leaf in others if not leaf.deleted]):
        meta.append(("_conflicts", live))
    if shown.deleted_conflicts and (dead := [leaf.rev for leaf in others if leaf.deleted]):
        meta.append(("_deleted_conflicts", dead))
    if shown.local_seq:
        meta.append(("_local_seq", tree.seq))
    return meta


def _status(revision: Revision) -> dict[str, str]:
    status = "deleted" if revision.deleted else "available"
    return {"rev": revision.rev, "status": "missing" if revision.body is None else status}


def write_document(
    doc_id: str, revision: Revision, shown: Shown, meta: Iterable[tuple[str, Any]] = ()
) -> bytes:
    """Return a revision's JSON text."""
    parts = [b'{"_id":%b,"_rev":"%b"' % (dumps(doc_id), revision.rev.encode())]
    if revision.body:
        parts += (b",", revision.body)
    if revision.deleted:
        parts.append(b',"_deleted":true')
    if shown.revs:
        ids = [one.hash for one in revision.path()]
        parts.append(b',"_revisions":' + dumps({"start": revision.generation, "ids": ids}))
    parts += [b",%b:%b" % (dumps(name), dumps(value)) for name, value in meta]
    if revision.attachments:
        parts.append(b',"_attachments":' + dumps(_files(revision, shown)))
    parts.append(b"}")
    return b"".join(parts)


def _files(revision: Revision, shown: Shown) -> dict[str, Any]:
    wanted = {one.name for one in files_wanted(revision, shown)}
    return {
        one.name: describe(
            one,
            inline=one.name in wanted and not shown.follows,
            follows=one.name in wanted and shown.follows,
            encoding_info=shown.encoding_info or shown.follows,
        )
        for one in revision.attachments
    }


def files_wanted(revision: Revision, shown: Shown) -> list[Attachment]:
    """Return the attachments whose content a reader wants."""
    if not shown.attachments:
        return []
    known = {one.key for one in revision.path()}
    newest = max((key[0] for key in shown.since or () if key in known), default=0)
    return [one for one in revision.attachments if one.revpos > newest]
