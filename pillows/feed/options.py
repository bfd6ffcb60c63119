"""Settings of a pillow's source: one CouchDB database, where to begin, and how to read it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pillows.couch.options import DatabaseGlobs, DatabaseName, is_database_name
from pillows.feed.brake import HoursOfDay
from pillows.options import Duration, Options, Size

#: How documents arrive: chosen by measuring, along with the feed, or fetched apart.
Documents = Literal["auto", "include_docs", "bulk_get"]

#: How the head of the feed is followed.
Mode = Literal["auto", "continuous", "longpoll"]


#: Parameters of `_changes` (CouchDB docs, "/{db}/_changes"): an argument would replace one of ours.
RESERVED_ARGUMENTS = frozenset(
    (
        *("attachments", "att_encoding_info", "conflicts", "descending", "doc_ids", "feed", "filter"),
        *("heartbeat", "include_docs", "last-event-id", "limit", "seq_interval", "since", "style"),
        *("timeout", "view"),
    )
)

#: Settings that hold for a pillow on several databases, and for the feed of a single one.
_OF_SEVERAL = ("exclude", "max_active", "sweep", "poll", "on_deleted")
_OF_ONE_DATABASE = (
    *("since", "documents", "mode", "on_missing", "max_rate", "quiet_hours", "join_overlap"),
    *("max_missed_purges", "doc_ids"),
)

#: `design/function`: a filter function of a design document.
FilterFunction = Annotated[str, Field(pattern=r"^[^_/][^/]*/[^/]+$")]


def _is_empty(value: object) -> bool:
    return not value


class SourceOptions(Options):
    """The source of a pillow.

    Attributes:
        connection: name of a connection of type `couchdb`.
        database: name of the database.
        databases: names of several databases, instead of `database`: one or a list, with `*`, `?` and `[...]`
            as wildcards. CouchDB's own, such as `_users`, must be written out.
        exclude: names or globs of databases that are left out.
        max_active: most databases that are read at the same time.
        sweep: interval at which every database is checked, in addition to `_db_updates`.
        poll: the same on a server without `_db_updates`, or that shows it to administrators only.
        on_deleted: what happens to the rows of a database that was deleted or excluded.
        since: where a pillow without a checkpoint begins: `beginning`, `now`, or a position.
        documents: `auto` reads documents along with the feed; while far behind it also tries fetching them
            with `_bulk_get`, and keeps the faster way for that server. The other values always do one of
            the two.
        mode: `continuous` keeps one response open; `longpoll` sends a request after every answer, for
            Cloudant and for proxies that buffer; `auto` chooses.
        on_missing: what to do while the database does not exist.
        on_recreated: what to do when it was deleted and created again.
        identity_token: also identify the database by a document `_local/pillowd-...` that pillowd writes to
            it; for servers before 3.3, which do not report creation times.
        skip_design: leave design documents out.
        page: most changes that a catch-up request asks for; fewer where documents are large, and at most
            2,000 ids to be fetched apart.
        timeout: how long the server keeps an idle feed open; proxies commonly cut after 60 s.
        queue: bytes that may wait between the feed and the pipeline.
        max_rate: most changes per second that a catch-up reads; unlimited by default.
        quiet_hours: local times of day in which `max_rate` holds, such as `08:00-18:00`; always by default.
        max_document: longest row that is read, with its document; a longer one becomes a dead letter. A few
            times as much may be in memory.
        join_overlap: how old a position of a shared feed must be before readers may join at it: longer than
            the lag of any copy of the database. 0 with one node.
        max_missed_purges: most documents that are removed from targets without asking, after purges that the
            source no longer lists (`purged_infos_limit`); or 1 % of a target's documents, if that is more.
        selector, doc_ids, design: a filter in the server, for append-only data only. More than 1,000 ids
            are asked for in groups, and the position follows by `join_overlap`, since CouchDB would
            scan the whole database for them (`changes_doc_ids_optimization_threshold`).
        filter_function: also such a filter: a function in a design document of the database, as
            `design/function`. CouchDB runs it for each change, slowly. Of several databases each needs it.
        filter_arguments: the function's `req.query`.
        on_filtered, deletes: must be `ignore` with a server-side filter: CouchDB then reports
            neither deletes nor documents that leave the selection.
    """

    connection: str
    database: DatabaseName = Field(default="", exclude_if=_is_empty)
    databases: DatabaseGlobs = Field(default=(), exclude_if=_is_empty)
    exclude: DatabaseGlobs = Field(default=(), exclude_if=_is_empty)
    max_active: int = Field(default=16, ge=1, le=32)
    sweep: Duration = Field(default=3600.0, ge=1)
    poll: Duration = Field(default=30.0, ge=1)
    on_deleted: Literal["keep", "remove"] = "keep"
    since: str | int | list[int | str] = "beginning"
    documents: Documents = "auto"
    mode: Mode = "auto"
    on_missing: Literal["wait", "fail"] = "wait"
    on_recreated: Literal["fail", "reload"] = "fail"
    identity_token: bool = False
    skip_design: bool = True
    page: int = Field(default=10_000, ge=100, le=10_000, multiple_of=100)
    timeout: Duration = Field(default=25.0, gt=0, le=60)
    queue: Size = Field(default=2**20, gt=0)
    max_rate: float | None = Field(default=None, gt=0)
    quiet_hours: HoursOfDay | None = None
    max_document: Size = Field(default=64 * 2**20, ge=2**20)
    join_overlap: Duration = Field(default=60.0, ge=0)
    max_missed_purges: int = Field(default=10_000, ge=0)
    selector: dict[str, object] | None = None
    doc_ids: list[str] | None = None
    design: bool = False
    filter_function: FilterFunction | None = None
    filter_arguments: dict[str, str] = Field(default_factory=dict)
    on_filtered: Literal["remove", "ignore"] = "remove"
    deletes: Literal["remove", "ignore"] = "remove"

    @property
    def name(self) -> str:
        """The source's part of a tail's key: `connection/database`, or `connection/pattern`."""
        return f"{self.connection}/{self.database or ','.join(self.databases)}"

    @property
    def is_filtered_by_server(self) -> bool:
        """Whether the server filters the feed."""
        return bool(self._filters)

    @property
    def _filters(self) -> list[str]:
        values = {name: getattr(self, name) for name in ("selector", "doc_ids", "design", "filter_function")}
        return [name for name, value in values.items() if value is not None and value is not False]

    @model_validator(mode="after")
    def _one_database_or_several(self) -> Self:
        if bool(self.database) == bool(self.databases):
            raise ValueError("needs one of `database` and `databases`; give exactly one")
        fields = type(self).model_fields
        given = {
            name for name in (*_OF_SEVERAL, *_OF_ONE_DATABASE) if getattr(self, name) != fields[name].default
        }
        if len(self.databases) == 1 and is_database_name(self.databases[0]):
            raise ValueError("has one name in `databases`; write `database`, or add a wildcard")
        if self.database and (extra := [name for name in _OF_SEVERAL if name in given]):
            raise ValueError(f"has `{extra[0]}`, which needs `databases`; remove it")
        if self.databases and (extra := [name for name in _OF_ONE_DATABASE if name in given]):
            raise ValueError(f"has `{extra[0]}`, which does not go with `databases`; remove it")
        return self

    @model_validator(mode="after")
    def _server_filters_only_for_append_only_data(self) -> Self:
        if self.quiet_hours is not None and self.max_rate is None:
            raise ValueError("has `quiet_hours` without `max_rate`, which holds in them; add it")
        if len(self._filters) > 1:
            raise ValueError(f"has more than one filter: {', '.join(self._filters)}; keep one")
        if self.filter_arguments and self.filter_function is None:
            raise ValueError("has `filter_arguments` without `filter_function`; add it, or remove them")
        if reserved := sorted(RESERVED_ARGUMENTS.intersection(self.filter_arguments)):
            raise ValueError(
                f"`filter_arguments` has {', '.join(reserved)}, which CouchDB reads itself; rename"
            )
        if self.is_filtered_by_server and (self.on_filtered, self.deletes) != ("ignore", "ignore"):
            raise ValueError(
                "a filter in the server needs `on_filtered: ignore` and `deletes: ignore`, since CouchDB "
                "reports neither deletes nor documents that leave the selection; or filter in pillowd"
            )
        return self
