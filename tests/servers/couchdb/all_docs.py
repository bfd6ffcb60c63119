"""`_all_docs`, `_design_docs`, `_local_docs`, and the documents of a partition."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from tests.servers.couchdb.collation import RANKS, rank
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.documents import Shown, meta_of, write_document
from tests.servers.couchdb.errors import bad_request
from tests.servers.couchdb.http import Request, Response
from tests.servers.couchdb.jsontext import dumps
from tests.servers.couchdb.revisions import Revision, Tree
from tests.servers.couchdb.view_arguments import ABSENT, Arguments, make_arguments, read_arguments

BLOCK_ROWS = 100
DESIGN = ("_design/", "_design0")  # the ends of their range

Row = Callable[[Any], bytes]


def all_docs(request: Request, database: Database) -> Response:
    """Answer `GET` and `POST /{db}/_all_docs`."""
    arguments = read_arguments(request)
    return Response(200, list_documents(database, arguments))


def all_docs_queries(request: Request, database: Database) -> Response:
    """Answer `POST /{db}/_all_docs/queries`."""
    queries = request.json_object().get("queries")
    if not isinstance(queries, list):
        raise bad_request("`queries` member must be an array.")
    every = [make_arguments(one, single=True) for one in queries]
    lists = [b"".join(list_documents(database, one)).rstrip() for one in every]
    return Response(200, iter([b'{"results":[\r\n' + b",\r\n".join(lists) + b"\r\n]}\n"]))


def design_docs(request: Request, database: Database) -> Response:
    """Answer `GET /{db}/_design_docs`; the offset is that of the shards that have some."""
    arguments = read_arguments(request)
    ids = database.ids()
    first, last = (bisect_left(ids, end) for end in DESIGN)
    shards = {database.shard_of(doc_id).number for doc_id in ids[first:last]}
    before = sum(database.shard_of(doc_id).number in shards for doc_id in ids[:first])
    window, _ = _window(ids[first:last], arguments)
    return Response(200, _list(last - first, before, window, _row_of(database, arguments)))


def partition_docs(request: Request, database: Database, partition: str) -> Response:
    """Answer `GET /{db}/_partition/{partition}/_all_docs`, whose figures are those of one shard."""
    check_partitioned(database)
    arguments = read_arguments(request)
    shard = database.shard_of(f"{partition}:")
    ids = [doc_id for doc_id in database.ids() if database.shard_of(doc_id) is shard]
    first, last = bisect_left(ids, f"{partition}:"), bisect_left(ids, f"{partition};")
    window, skipped = _window(ids[first:last], arguments)
    return Response(200, _list(len(ids), first + skipped, window, _row_of(database, arguments)))


def check_partitioned(database: Database) -> None:
    """Refuse a database without partitions."""
    if not database.partitioned:
        raise bad_request("database is not partitioned")


def partition_info(database: Database, partition: str) -> dict[str, Any]:
    """Return the answer of `GET /{db}/_partition/{partition}`."""
    check_partitioned(database)
    shard = database.shard_of(f"{partition}:")
    packed = [data for doc_id, data in shard.packed.items() if doc_id.startswith(f"{partition}:")]
    dead = sum(Tree.unpack(data).deleted for data in packed)
    size = sum(map(len, packed))
    return {
        "db_name": database.name,
        "sizes": {"active": size, "external": size},
        "partition": partition,
        "doc_count": len(packed) - dead,
        "doc_del_count": dead,
    }


def local_docs(request: Request, database: Database) -> Response:
    """Answer `GET` and `POST /{db}/_local_docs`."""
    arguments = read_arguments(request)
    ids = arguments.keys if arguments.keys is not None else sorted(database.local)
    window, _ = _window(ids, arguments)
    return Response(200, _list(None, None, window, _row_of(database, arguments)))


def list_documents(database: Database, arguments: Arguments) -> Iterator[bytes]:
    """Yield the answer of `_all_docs`."""
    row = _row_of(database, arguments)
    total = database.live
    if arguments.keys is not None:
        keys = arguments.keys[::-1] if arguments.descending else arguments.keys
        extra: dict[str, Any] = {"update_seq": None} if arguments.update_seq else {}
        return _list(total, None, _cut(keys, arguments), row, extra)
    extra = {"update_seq": database.update_seq()} if arguments.update_seq else {}
    window, before = _window(database.ids(), arguments)
    return _list(total, before, window, row, extra)


def _cut(items: list[Any], arguments: Arguments) -> list[Any]:
    end = None if arguments.limit is None else arguments.skip + arguments.limit
    return list(islice(items, arguments.skip, end))


def _window(ids: list[str], arguments: Arguments) -> tuple[list[str], int]:
    """Return the ids of a range, and how many come before them."""
    first = _place(ids, arguments.low, bisect_left, default=0)
    last = _place(ids, arguments.high, bisect_right, default=len(ids))
    if not arguments.inclusive_end and arguments.endkey is not ABSENT:
        if arguments.descending:
            first = _place(ids, arguments.low, bisect_right, default=0)
        else:
            last = _place(ids, arguments.high, bisect_left, default=len(ids))
    window = ids[first : max(first, last)]
    before = len(ids) - last if arguments.descending else first
    if arguments.descending:
        window = window[::-1]
    return _cut(window, arguments), before + min(arguments.skip, len(window))


def _place(ids: list[str], key: Any, find: Callable[[list[str], str], int], *, default: int) -> int:
    if key is ABSENT:
        return default
    if not isinstance(key, str):
        return 0 if rank(key) < RANKS[str] else len(ids)
    return find(ids, key)


def _row_of(database: Database, arguments: Arguments) -> Row:
    shown = Shown(conflicts=arguments.conflicts, attachments=arguments.attachments)

    def row(key: Any) -> bytes:
        found = _look_up(database, key)
        if found is None:
            return dumps({"key": key, "error": "not_found"})
        tree, revision = found
        name = dumps(key)
        deleted = b',"deleted":true' if revision.deleted else b""
        head = b'{"id":%b,"key":%b,"value":{"rev":"%b"%b}' % (name, name, revision.rev.encode(), deleted)
        if not arguments.include_docs:
            return head + b"}"
        meta = meta_of(tree, shown) if tree else []
        document = b"null" if revision.deleted else write_document(key, revision, shown, meta)
        return b'%b,"doc":%b}' % (head, document)

    return row


def _look_up(database: Database, key: Any) -> tuple[Tree | None, Revision] | None:
    if not isinstance(key, str):
        return None
    if key.startswith("_local/"):
        known = database.local.get(key)
        return (None, Revision(0, str(known[0]), None, known[1])) if known else None
    tree = database.tree(key)
    return (tree, tree.winner) if tree else None


def _list(
    total: int | None, offset: int | None, keys: list[Any], row: Row, extra: dict[str, Any] | None = None
) -> Iterator[bytes]:
    head = dumps({"total_rows": total, "offset": offset, **(extra or {})})[:-1]
    waiting = head + b',"rows":[\r\n'
    for start in range(0, len(keys), BLOCK_ROWS):
        yield waiting + b",\r\n".join(map(row, keys[start : start + BLOCK_ROWS]))
        waiting = b",\r\n"
    yield (waiting if not keys else b"") + b"\r\n]}\n"
