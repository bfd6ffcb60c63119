"""The steps that all writes of documents share: authorization, validation, storage."""

from __future__ import annotations

from typing import Any

from tests.servers.couchdb.attachments import describe
from tests.servers.couchdb.auth import User, hide_password, is_database_admin
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Edit, Shown, write_document
from tests.servers.couchdb.editing import edit_document, edit_local, replicate_document
from tests.servers.couchdb.errors import forbidden
from tests.servers.couchdb.javascript import Function, Thrown, validation_refusal
from tests.servers.couchdb.jsontext import dumps, loads
from tests.servers.couchdb.revisions import Revision

NOT_ADMIN = "You are not a db or server admin."
VALIDATORS = "validate_doc_update"


class Writer:
    """Writes documents for a user.

    Args:
        database: where to.
        user: who writes.
    """

    def __init__(self, database: Database, user: User) -> None:
        self._database = database
        self._user = user

    def edit(self, edit: Edit) -> str:
        """Store an edit; return its revision.

        Raises:
            Refusal: it is a conflict, or not allowed.
        """
        if edit.id.startswith("_local/"):
            return edit_local(self._database, edit)
        self._prepare(edit)
        return edit_document(self._database, edit, self._check).rev

    def replicate(self, edit: Edit) -> str:
        """Store a revision as it is; return it."""
        if edit.id.startswith("_local/"):
            return edit_local(self._database, edit)
        return replicate_document(self._database, edit, self._check).rev

    def _prepare(self, edit: Edit) -> None:
        if self._database.name == "_users" and not edit.id.startswith("_design/") and not edit.deleted:
            edit.body = hide_password(edit.id, edit.body)
            edit.text = dumps(edit.body)[1:-1]

    def _check(self, edit: Edit, base: Revision | None) -> None:
        if edit.id.startswith("_design/"):
            if not is_database_admin(self._user, self._database):
                raise forbidden(NOT_ADMIN)
            return
        functions = validators(self._database)
        if not functions:
            return
        old = write_document(edit.id, base, Shown()) if base else b"null"
        context = dumps(self._user.context(self._database.name))
        for function in functions:
            try:
                function(_as_sent(edit), old, context, self._database.security)
            except Thrown as thrown:
                raise validation_refusal(thrown) from None


def _as_sent(edit: Edit) -> bytes:
    document: dict[str, Any] = {"_id": edit.id}
    if edit.path:
        document["_rev"] = f"{edit.path[0][0]}-{edit.path[0][1]}"
    document |= edit.body
    if edit.deleted:
        document["_deleted"] = True
    if edit.sent:
        files = edit.sent.resolve(edit.id, 1, (), lenient=True)
        document["_attachments"] = {one.name: describe(one) for one in files}
    return dumps(document)


def validators(database: Database) -> list[Function]:
    """Return a database's validation functions."""
    if VALIDATORS not in database.code:
        sources = [design.get(VALIDATORS) for design in design_documents(database).values()]
        database.code[VALIDATORS] = [Function(source) for source in sources if isinstance(source, str)]
    functions: list[Function] = database.code[VALIDATORS]
    return functions


def design_documents(database: Database) -> dict[str, dict[str, Any]]:
    """Return the content of a database's design documents by their ids."""
    found: dict[str, dict[str, Any]] = {}
    for shard in database.shards:
        for doc_id in [doc_id for doc_id in shard.packed if doc_id.startswith("_design/")]:
            tree = shard.tree(doc_id)
            if tree and not tree.deleted:
                found[doc_id] = loads(b"{" + (tree.winner.body or b"") + b"}")
    return found
