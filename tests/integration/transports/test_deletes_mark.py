"""`deletes: mark`: the rows of a deleted document stay, with the time; everything else as without it.

The conformance suite runs on unmarked rows alone, since readers and `verify` see only those.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pillows.errors import ConfigError
from pillows.models import Batch, write_version
from pillows.transports.common.columns import TableOutput
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.sqlite.options import SqliteOutput
from tests.conformance.guards import GuardConformance
from tests.conformance.history import History
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import Target, at, batch, document, gone
from tests.conformance.target_states import TargetStateConformance
from tests.conformance.writes import WriteConformance
from tests.integration.transports import postgres_database, sqlite_file
from tests.integration.transports.postgres_database import PostgresDatabase
from tests.integration.transports.sqlite_file import SqliteTarget
from tests.support.sizes import size


class MarkingPostgres(PostgresDatabase):
    """A database whose marked rows nobody looks at."""

    def __init__(self, dsn: str, *, shared: bool = False) -> None:
        more = {"deletes": "mark", "shared": shared}
        known = postgres_database.OUTPUTS.items()
        outputs = {
            name: PostgresOutput.model_validate(one.model_dump(by_alias=True) | more) for name, one in known
        }
        super().__init__(dsn, outputs=outputs)

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        many = self.outputs[output].many
        found: dict[str, list[dict[str, Any]]] = {}
        order = f"_id{', _row' if many else ''}"
        for row in self.query(
            f"select * from {self.table(output)} where _deleted_at is null order by {order}"
        ):
            for own in ("_row", "_source", "_deleted_at"):
                row.pop(own, None)
            found.setdefault(row["_id"], []).append(row.get("doc", row))
        return found

    def all_rows(self, output: str) -> list[dict[str, Any]]:
        order = f"_id{', _row' if self.outputs[output].many else ''}"
        return self.query(f"select * from {self.table(output)} order by {order}")

    def add_outputs(self, **outputs: PostgresOutput) -> None:
        self.outputs = {**self.outputs, **outputs}

    output_class = PostgresOutput


class MarkingSqlite(SqliteTarget):
    """A file whose marked rows nobody looks at."""

    output_class = SqliteOutput

    def __init__(self, path: Path) -> None:
        known = sqlite_file.OUTPUTS.items()
        super().__init__(
            path,
            {name: TableOutput.model_validate(one.model_dump() | {"deletes": "mark"}) for name, one in known},
        )

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        marked = {(row["_id"], row.get("_row")) for row in self.all_rows(output) if row["_deleted_at"]}
        found: dict[str, list[dict[str, Any]]] = {}
        for id, listed in super().read(output).items():
            left = [
                {name: value for name, value in row.items() if name != "_deleted_at"}
                for number, row in enumerate(listed)
                if (id, number if self.outputs[output].many else None) not in marked
            ]
            if left:
                found[id] = left
        return found

    def all_rows(self, output: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path)) as db:
            db.row_factory = sqlite3.Row
            table = self.outputs[output].table
            return [dict(row) for row in db.execute(f'SELECT * FROM "{table}" ORDER BY _id, rowid')]

    def add_outputs(self, **outputs: SqliteOutput) -> None:
        self.outputs = {**self.outputs, **outputs}


class MarkConformance(WriteConformance, GuardConformance, TargetStateConformance):
    @pytest.mark.parametrize("seed", range(size(ci=2, proof=100)))
    def test_g10_histories_converge(self, target: Target, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)

    @pytest.mark.parametrize("output", ["docs", "lines"])
    @pytest.mark.parametrize("gone", [False])  # a marked row is one: the target is not empty
    def test_rows_and_deletions_of_another_pillow_are_known_by_their_epoch(
        self, target: Target, output: str, gone: bool
    ) -> None:
        super().test_rows_and_deletions_of_another_pillow_are_known_by_their_epoch(target, output, gone)


class TestG10Sqlite(MarkConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> MarkingSqlite:
        return MarkingSqlite(tmp_path / "target.db")


class TestG10Postgres(MarkConformance):
    @pytest.fixture
    def target(self, request: pytest.FixtureRequest) -> MarkingPostgres:
        if "restart" in request.node.name:
            pytest.skip("tested without marks, too: they are columns")
        return MarkingPostgres(request.getfixturevalue("postgres_dsn"))


@pytest.mark.parametrize("seed", range(size(ci=1, proof=100)))
def test_g10_histories_of_a_shared_table_converge(postgres_dsn: str, seed: int) -> None:
    History(MarkingPostgres(postgres_dsn, shared=True), random.Random(seed)).play(steps=60)


@pytest.fixture(params=["sqlite", "postgres"])
def marking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "sqlite":
        yield MarkingSqlite(tmp_path / "target.db")
    else:
        yield MarkingPostgres(request.getfixturevalue("postgres_dsn"))


def moment(value: Any) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def test_g10_a_deleted_row_is_kept_with_the_time_and_its_version(marking: Any) -> None:
    with opened(marking, "docs", "lines") as transport:
        two = [{"line": 1}, {"line": 2}]
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}, lines=two))))
        assert_applied(transport.write(batch(gone("a", 2), gone("never", 2))))
        (row,) = marking.all_rows("docs")
        assert abs(moment(row["_deleted_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
        assert (row["_rev"], row["_version"]) == (gone("a", 2).rev, write_version(1, 2))
        lines = marking.all_rows("lines")
        assert len(lines) == 2
        assert all(line["_deleted_at"] for line in lines)
        # A replay changes nothing, and neither does a later deletion: the first mark stays.
        assert transport.write(batch(gone("a", 2))).refused == {"a": write_version(1, 2)}
        assert transport.write(batch(document("a", 1, {"n": 1}))).refused == {"a": write_version(1, 2)}
        assert_applied(transport.write(batch(gone("a", 4))))
        (again,) = marking.all_rows("docs")
        assert (again["_deleted_at"], again["_version"]) == (row["_deleted_at"], write_version(1, 4))
        # A revival clears the mark, also with fewer child rows.
        assert_applied(transport.write(batch(document("a", 5, {"n": 5}, lines=[{"line": 5}]))))
        (revived,) = marking.all_rows("docs")
        (line,) = marking.all_rows("lines")
        assert (revived["_deleted_at"], revived["_version"]) == (None, write_version(1, 5))
        assert line["_deleted_at"] is None


def test_g10_nothing_of_a_document_that_has_a_row_is_marked(marking: Any) -> None:
    with opened(marking, "docs", "other", "lines") as transport:
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}, lines=[{"line": 1}]))))
        assert_applied(transport.write(batch(document("a", 2, {"n": 2}, output="other"), gone("b", 1))))
        assert (marking.all_rows("docs"), marking.all_rows("lines")) == ([], [])
        assert rows(marking, "other") == {"a": [{"n": 2}]}
        assert transport.write(batch(document("a", 1, {"n": 1}))).refused == {"a": write_version(1, 2)}


def test_g10_verify_does_not_see_marked_rows(marking: Any) -> None:
    with opened(marking, "docs", "lines") as transport:
        written = [document(id, 1, {"n": 1}, lines=[{"line": 1}]) for id in ("a", "b")]
        assert_applied(transport.write(batch(*written)))
        assert_applied(transport.write(batch(gone("a", 2))))
        for output in ("docs", "lines"):
            for ids in (None, ["a", "b"]):
                pages = transport.stored(output, ids)
                assert [each.id for page in pages for each in page] == ["b"], (output, ids)


def test_g10_the_end_of_a_pass_marks_what_it_did_not_meet_once(marking: Any) -> None:
    with opened(marking, "docs", "lines") as transport:
        written = [document(id, 1, {"n": 1}, lines=[{"line": 1}]) for id in ("a", "b")]
        assert_applied(transport.write(batch(*written)))
        transport.acquire(at("0", epoch=2))
        assert_applied(transport.write(batch(written[1], epoch=2)))
        assert transport.finish_pass(2) == 2
        assert transport.finish_pass(2) == 0
        assert [(row["_id"], bool(row["_deleted_at"])) for row in marking.all_rows("docs")] == [
            ("a", True),
            ("b", False),
        ]
        assert rows(marking, "lines") == {"b": [{"line": 1}]}
        transport.acquire(at("0", epoch=3))
        assert_applied(transport.write(batch(written[0], written[1], epoch=3)))
    assert set(rows(marking)) == {"a", "b"}


def test_g10_a_first_pass_marks_too(marking: Any) -> None:
    with opened(marking, "docs") as transport:
        first = Batch(documents=[document("a", 1, {"n": 1})], epoch=1, first_pass=True)
        assert_applied(transport.write(first))
        second = Batch(documents=[gone("a", 2), gone("b", 2)], epoch=1, first_pass=True)
        assert_applied(transport.write(second))
        assert rows(marking) == {}
    assert [row["_id"] for row in marking.all_rows("docs")] == ["a"]
    assert marking.write_version("docs", "b") is None


def test_g10_an_existing_table_gets_the_column_under_any_name(marking: Any) -> None:
    odd = 'gone "at" %s'
    marking.add_outputs(
        plain=marking.output_class(table="t", columns={"n": "n integer"}),
        marked=marking.output_class(
            table="t", columns={"n": "n integer"}, deletes="mark", deleted_column=odd
        ),
    )
    with opened(marking, "plain") as transport:
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}, output="plain"))))
        plain = transport.outputs_digest()
    marked = marking.transport("marked")
    assert marked.outputs_digest() != plain, "to go back, a reset must remove what is marked"
    with closing(marked):
        marked.open()
        marked.acquire(at("0"))
        assert_applied(marked.write(batch(gone("a", 2))))
    (row,) = marking.all_rows("marked")
    assert row[odd] is not None


@pytest.mark.parametrize("name", ["_id", "_version", "doc", " ", "N"])
def test_g10_a_name_that_is_taken_is_refused(name: str) -> None:
    for kind in (PostgresOutput, SqliteOutput):
        with pytest.raises(ValueError, match="deleted_column"):
            kind.model_validate(
                {"table": "t", "columns": {"n": "n int"}, "deletes": "mark", "deleted_column": name}
            )


def test_g10_names_and_digests_of_attachments_are_columns(marking: Any) -> None:
    columns = {
        "attached": "_attachments jsonb",
        "names": "keys(_attachments || `{}`) jsonb",
        "digests": "values(_attachments || `{}`)[].digest jsonb",
    }
    marking.add_outputs(files=marking.output_class(table="files", columns=columns))
    stub = {"content_type": "text/plain", "revpos": 1, "digest": "md5-x", "length": 5, "stub": True}
    with opened(marking, "files") as transport:
        with_one = document("a", 1, {"_attachments": {"a.txt": stub}}, output="files")
        assert_applied(transport.write(batch(with_one, document("b", 1, {"n": 1}, output="files"))))
    found = [(str(row["names"]), str(row["digests"])) for row in marking.all_rows("files")]
    assert [each.replace("'", '"') for pair in found for each in pair] == [
        '["a.txt"]',
        '["md5-x"]',
        "[]",
        "[]",
    ]


def test_g10_a_mark_is_not_taken_from_a_table_of_another_shape(marking: Any) -> None:
    marking.add_outputs(
        text=marking.output_class(table="t", columns={"_deleted_at": "n boolean"}),
        marked=marking.output_class(table="t", deletes="mark"),
    )
    with opened(marking, "text"):
        pass
    marked = marking.transport("marked")
    with closing(marked), pytest.raises(ConfigError, match="_deleted_at"):
        marked.open()
