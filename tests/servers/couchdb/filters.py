"""The filters of a feed: by ids, by a selector, by a function or a view of a design document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Shown, write_document
from tests.servers.couchdb.errors import Refusal, bad_request, missing
from tests.servers.couchdb.http import Request
from tests.servers.couchdb.javascript import Function, Thrown
from tests.servers.couchdb.jsontext import dumps, loads
from tests.servers.couchdb.revisions import Revision
from tests.servers.couchdb.selector import InvalidOperator, matcher

Keeps = Callable[[str, Revision], bool]


class Filter:
    """The choice of a feed's rows.

    Attributes:
        keeps: whether a revision passes; None lets all pass.
        ids: the only documents that are looked at; None is all.
        fields: the members of a document that are shown; None shows all.
    """

    def __init__(
        self,
        keeps: Keeps | None = None,
        *,
        ids: Callable[[str], bool] | None = None,
        fields: list[str] | None = None,
    ) -> None:
        self.keeps = keeps
        self.ids = ids
        self.fields = fields

    def passing(self, doc_id: str, leaves: Iterable[Revision]) -> list[Revision]:
        """Return the leaves that pass."""
        return [leaf for leaf in leaves if self.keeps is None or self.keeps(doc_id, leaf)]


def make_filter(request: Request, database: Database, body: dict[str, Any]) -> Filter:
    """Return the filter that a request asks for.

    Raises:
        Refusal: the filter does not exist.
    """
    name = request.value("filter")
    if not name:
        return Filter()
    if name == "_doc_ids":
        return _by_ids(request, body)
    if name == "_design":
        return Filter(ids=lambda doc_id: doc_id.startswith("_design/"))
    if name == "_selector":
        return _by_selector(request, body)
    if name == "_view":
        return _by_view(request, database)
    return _by_function(request, database, name)


def _by_ids(request: Request, body: dict[str, Any]) -> Filter:
    given = body.get("doc_ids")
    if request.method == "GET":
        text = request.value("doc_ids")
        given = loads(text.encode()) if text is not None else None
    if not isinstance(given, list):
        raise bad_request("`doc_ids` filter parameter is not a list of doc ids.")
    wanted = {one for one in given if isinstance(one, str)}
    return Filter(ids=wanted.__contains__)


def _by_selector(request: Request, body: dict[str, Any]) -> Filter:
    if request.method != "POST":
        raise bad_request("Selector must be specified in POST payload")
    selector = body.get("selector")
    if not isinstance(selector, dict):
        raise bad_request("Selector error: expected a JSON object")
    try:
        matches = matcher(selector)
    except InvalidOperator as error:
        raise bad_request(str(error)) from None
    fields = body.get("fields")
    return Filter(
        lambda doc_id, leaf: matches(loads(write_document(doc_id, leaf, Shown()))),
        fields=fields if isinstance(fields, list) else None,
    )


def _by_view(request: Request, database: Database) -> Filter:
    name = request.value("view")
    if not name:
        raise bad_request("`view` filter parameter is not provided.")
    design, slash, view = name.partition("/")
    if not slash:
        raise bad_request("`view` must be of the form `designname/viewname`")
    source = _member(_member(design_document(database, design), "views"), view).get("map", "")
    function = compiled(database, source)
    return Filter(lambda doc_id, leaf: bool(run(function, write_document(doc_id, leaf, Shown()))[1]))


def _by_function(request: Request, database: Database, name: str) -> Filter:
    design, slash, function_name = name.partition("/")
    if not slash:
        raise bad_request("`filter` must be of the form `designname/filtername`")
    source = _member(_member(design_document(database, design), "filters"), function_name)
    function = compiled(database, source)
    seen = {
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": request.headers,
        "userCtx": request.user.context(database.name),
    }
    sent = dumps(seen)
    return Filter(
        lambda doc_id, leaf: run(function, write_document(doc_id, leaf, Shown()), sent)[0] in (True, 1)
    )


def design_document(database: Database, name: str) -> dict[str, Any]:
    """Return a design document's content.

    Raises:
        Refusal: there is none.
    """
    tree = database.tree(f"_design/{name}")
    if tree is None:
        raise missing()
    if tree.deleted:
        raise missing("deleted")
    content: dict[str, Any] = loads(b"{" + (tree.winner.body or b"") + b"}")
    return content


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise missing(f"missing json key: {name}")
    return value[name]


def compiled(database: Database, source: str) -> Function:
    """Return a function of a design document, compiled once.

    Raises:
        Refusal: it does not compile.
    """
    key = f"function {source}"
    if key not in database.code:
        try:
            database.code[key] = Function(source)
        except Refusal as refusal:
            raise Refusal(500, "error", f"{refusal.error}: {refusal.reason}") from None
    function: Function = database.code[key]
    return function


def run(function: Function, *texts: bytes) -> tuple[Any, list[list[Any]]]:
    """Call a function whose failure fails the request."""
    try:
        return function(*texts)
    except Thrown as thrown:
        raise Refusal(500, "error", str(thrown)) from None
