"""Edits: which of them are conflicts, and which revision each makes."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Edit
from tests.servers.couchdb.erlang import revision_hash
from tests.servers.couchdb.errors import Refusal, bad_request, conflict
from tests.servers.couchdb.revisions import Attachment, Key, Revision, Tree

HASH_LENGTH = 32

Validate = Callable[[Edit, Revision | None], None]
NO_HISTORY = "When `new_edits: false`, the document needs `_rev` or `_revisions` specified"


def edit_document(database: Database, edit: Edit, validate: Validate) -> Revision:
    """Store an edit as a new revision; return it.

    Raises:
        Refusal: it is a conflict, or a validation function refuses it.
    """
    tree = database.tree(edit.id) or Tree()
    base = _base(tree, edit)
    if edit.sent:  # before validation: a stub that is not there refuses the whole request
        edit.sent.resolve(edit.id, 0, base.attachments if base else ())
    validate(edit, base)
    if base is None and tree.revisions:
        if edit.deleted:
            raise conflict()
        base = tree.winner  # a revival stands on the tombstone that wins, and has nothing of it
        revision = _new(edit, base.key, ())
    elif base is not None:
        revision = _new(edit, base.key, base.attachments)
    else:
        revision = _new(edit, edit.path[0] if edit.path else (0, ""), ())
    known = [base.key] if base else edit.path[:1]
    if not tree.merge(revision, known):
        raise conflict()
    database.store(edit.id, tree)
    return revision


def _base(tree: Tree, edit: Edit) -> Revision | None:
    """Return the leaf that an edit extends, None for one that begins a document or revives it."""
    if not tree.revisions:
        if edit.path and len(edit.path[0][1]) != HASH_LENGTH:
            raise conflict()
        return None
    if not edit.path:
        if not tree.deleted:
            raise conflict()
        return None
    leaf = next((leaf for leaf in tree.leaves() if leaf.key == edit.path[0]), None)
    if leaf is None or tree.deleted:
        raise conflict()
    return leaf


def _new(edit: Edit, parent: Key, before: tuple[Attachment, ...]) -> Revision:
    generation, digest = parent
    files = edit.sent.resolve(edit.id, generation + 1, before) if edit.sent else ()
    name = revision_hash(
        edit.body,
        deleted=edit.deleted,
        start=generation,
        parent=digest,
        attachments=[(one.name, one.content_type, one.digest) for one in reversed(files)],
    )
    return Revision(generation + 1, name, None, edit.text, edit.deleted, files)


def check_history(edit: Edit) -> None:
    """Refuse a replicated document without a revision."""
    if not edit.path:
        raise bad_request(NO_HISTORY)


def replicate_document(database: Database, edit: Edit, validate: Validate) -> Revision:
    """Store a revision as it is; return it.

    Raises:
        Refusal: a validation function refuses it.
    """
    tree = database.tree(edit.id) or Tree()
    parent = next((tree.revisions[key] for key in edit.path[1:] if key in tree.revisions), None)
    before = parent.attachments if parent else ()
    known = tree.revisions.get(edit.path[0])
    generation, digest = edit.path[0]
    files: tuple[Attachment, ...] = ()
    if edit.sent:
        held = known.attachments if known else before
        files = edit.sent.resolve(edit.id, generation, held, keep_revpos=True)
    validate(edit, parent)
    revision = Revision(generation, digest, None, edit.text, edit.deleted, files)
    lacked_body = known is None or known.body is None
    count = len(tree.revisions)
    is_new = tree.merge(revision, edit.path[1:])
    if lacked_body or len(tree.revisions) != count:
        database.store(edit.id, tree, is_new=is_new)
    return revision


def edit_local(database: Database, edit: Edit) -> str:
    """Store a local document, or remove it; return its revision."""
    generation, digest = edit.path[0] if edit.path else (0, "0")
    if generation != 0 or not digest.isdigit():
        raise Refusal(500, "error", "Invalid rev format")
    if edit.deleted:
        database.store_local(edit.id, 0, None)
        return "0-0"
    number = int(digest) + 1
    database.store_local(edit.id, number, edit.text)
    return f"0-{number}"
