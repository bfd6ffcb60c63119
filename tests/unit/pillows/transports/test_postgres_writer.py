"""How one batch is written into PostgreSQL: the statements, retries and rollbacks, in their order.

The server is played by a script; that it answers like this is tested in `tests/integration/transports`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pillows.models import MAX_LEAF_VERSION, Batch, DocumentRows, WriteResult, write_version
from pillows.transports.postgres import writer
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.statements import Table
from pillows.transports.postgres.writer import PostgresBatchWriter, encode_batch

MISFIT = errors.NumericValueOutOfRange
STORED = errors.UniqueViolation


class Server:
    """A cursor whose server answers as the test says.

    Attributes:
        done: the statements that matter, in order: a word for each, with its argument.
        fails: word -> the errors of its next calls; None for one that works.
        tombstones: what the look for stored write versions finds.
        newer: per table, document number -> the write version that refuses it.
        misfits: what the probe finds.
        violates: the numbers of documents that break a constraint when they are moved.
        rowcount: rows of the last statement.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        self.done: list[tuple[str, Any]] = []
        self.fails: dict[str, list[Exception | None]] = {}
        self.tombstones = False
        self.newer: dict[int, dict[int, int]] = {}
        self.misfits: list[tuple[int, str, str, str]] = []
        self.violates: set[int] = set()
        self.rowcount = 0
        self._rows: list[Any] = []

    def words(self) -> list[str]:
        return [word for word, _ in self.done]

    def of(self, word: str) -> list[Any]:
        return [argument for name, argument in self.done if name == word]

    def execute(self, query: bytes | str, parameters: Any = None) -> Server:
        self._rows = []
        word, argument = self._read(query, parameters)
        self.done.append((word, argument))
        self._fail(word)
        if word == "move" and any(argument[1]["low"] <= n <= argument[1]["high"] for n in self.violates):
            raise errors.CheckViolation("no")
        return self

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    @contextmanager
    def copy(self, statement: bytes) -> Iterator[Any]:
        copied: list[bytes] = []

        class Copy:
            def write(self, data: bytes) -> None:
                copied.append(data)

        yield Copy()
        number = self._table_of(statement)
        word = "direct" if statement == self.tables[number].copy_direct else "stage"
        ids = re.findall(rb"^(?:\d+\t(?:\d+|\\N)\t)?(\w+)\t", b"".join(copied), re.M)
        self.done.append((word, (number, [id.decode() for id in ids])))
        self._fail(word)

    def _fail(self, word: str) -> None:
        error = self.fails[word].pop(0) if self.fails.get(word) else None
        if error is not None:
            raise error

    def _table_of(self, query: bytes) -> int:
        for number, table in enumerate(self.tables):
            known = [table.copy_direct, table.copy_stage, table.has_version_of_query, table.unstage]
            known += [*table.refusals]
            known += [each for flags in FLAGS for each in table.move(**flags)]
            if query in known:
                return number
        return next(n for n, table in enumerate(self.tables) if f"{table.stage}_probe".encode() in query)

    def _read(self, query: bytes | str, parameters: Any) -> tuple[str, Any]:
        if isinstance(query, str):
            first = query.split(";")[0]
            words = {
                "savepoint pillowd": "begin",
                "set constraints all immediate": "keep",
                "rollback to savepoint pillowd": "undo",
            }
            return words[first], None
        number = self._table_of(query)
        table = self.tables[number]
        if query == table.has_version_of_query:
            self._rows = [(self.tombstones,)]
            return "look", (number, list(parameters[0]))
        if query in table.refusals:
            self._rows = list(self.newer.get(number, {}).items()) if query == table.refusals[0] else []
            return "compare", number
        if query == table.unstage:
            return "unstage", (number, sorted(parameters[0]))
        if b"_probe" in query:
            self._rows = self.misfits if number == 0 else []
            return "probe", (number, sorted(parameters[0]))
        return "move", (number, parameters)


FLAGS = [{"present": present, "gone": gone} for present in (True, False) for gone in (True, False)]


def make_table(number: int = 0, **options: Any) -> Table:
    settings = PostgresOutput(table=f"t{number}", columns={"n": "n integer"}, **options)
    table = Table(number, f"out{number}", settings, "s", "c/d")
    table.value_pattern = re.compile(rb"\d{1,3}\n")
    table.tombstoned = False
    return table


def doc(id: str, n: int = 1, version: int = 1, outputs: Sequence[str] = ("out0",)) -> DocumentRows:
    return DocumentRows(
        id=id, rev=f"{version}-a", leaf_version=version, rows={output: [{"n": n}] for output in outputs}
    )


class Written:
    """One batch, written."""

    def __init__(self, server: Server, documents: Sequence[DocumentRows], *, first_pass: bool = True) -> None:
        batch = Batch(documents=documents, epoch=1, first_pass=first_pass)
        encoded, dead = encode_batch(batch, server.tables)
        cursor: Any = server
        self.writer = PostgresBatchWriter(
            cursor, server.tables, first_pass=first_pass, documents=encoded, dead=dead
        )
        self.result: WriteResult = self.writer.write()


def test_a_first_pass_copies_straight_into_the_tables() -> None:
    server = Server([make_table()])
    written = Written(server, [doc("b"), doc("a")])
    assert server.done == [("begin", None), ("direct", (0, ["a", "b"])), ("keep", None)]
    assert written.result == WriteResult()
    assert written.writer.is_clean


def test_where_write_versions_of_deleted_documents_are_stored_they_are_looked_up() -> None:
    one, two = make_table(0), make_table(1)
    two.tombstoned = True
    server = Server([one, two])
    Written(server, [doc("a", outputs=("out0", "out1"))])
    assert server.of("look") == [(1, ["a"])]
    assert server.of("direct") == [(0, ["a"]), (1, ["a"])]


def test_where_one_is_found_everything_is_staged() -> None:
    table = make_table()
    table.tombstoned = True
    server = Server([table])
    server.tombstones = True
    Written(server, [doc("a")])
    assert server.of("direct") == []
    assert server.of("stage") == [(0, ["a"])]


def test_a_refused_look_stages_everything() -> None:
    table = make_table()
    table.tombstoned = True
    server = Server([table])
    server.fails["look"] = [errors.CharacterNotInRepertoire("no")]
    Written(server, [doc("a")])
    assert server.of("direct") == []
    assert server.of("stage") == [(0, ["a"])]


@pytest.mark.parametrize(
    ("first_pass", "options"), [(False, {}), (True, {"many": True}), (True, {"shared": True})]
)
def test_other_batches_are_staged(first_pass: bool, options: dict[str, bool]) -> None:
    server = Server([make_table(**options)])
    Written(server, [doc("a")], first_pass=first_pass)
    assert "direct" not in server.words()
    assert server.of("stage") == [(0, ["a"])]


def test_a_document_without_rows_in_one_of_the_tables_is_staged() -> None:
    server = Server([make_table(0), make_table(1)])
    Written(server, [doc("a", outputs=("out0", "out1")), doc("b", outputs=("out1",))])
    assert server.of("direct") == [(0, ["a"]), (1, ["a"])]
    assert server.of("stage") == [(0, ["b"]), (1, ["b"])]


def test_of_a_stored_document_the_whole_copy_is_undone_and_staged() -> None:
    table = make_table()
    server = Server([table])
    server.fails["direct"] = [STORED("there")]
    written = Written(server, [doc("a"), doc("b")])
    assert server.words()[:5] == ["begin", "direct", "undo", "begin", "stage"]
    assert server.of("stage") == [(0, ["a", "b"])]
    assert not table.precheck_values
    assert written.result == WriteResult()


def test_after_a_value_that_does_not_fit_only_values_that_surely_fit_are_copied() -> None:
    one, two = make_table(0), make_table(1)
    server = Server([one, two])
    both = ("out0", "out1")
    server.fails["direct"] = [MISFIT("no")]
    Written(server, [doc("a", 7, outputs=both), doc("b", 7777, outputs=both)])
    assert server.of("direct") == [(0, ["a", "b"]), (0, ["a"]), (1, ["a"])]
    assert server.of("stage") == [(0, ["b"]), (1, ["b"])]
    assert one.precheck_values
    assert two.precheck_values


def test_the_next_batch_checks_values_first_and_tries_once() -> None:
    table = make_table()
    table.precheck_values = True
    server = Server([table])
    server.fails["direct"] = [MISFIT("no")]
    Written(server, [doc("a", 7), doc("b", 7777)])
    assert server.of("direct") == [(0, ["a"])]
    assert server.of("stage") == [(0, ["a", "b"])]


def test_where_all_values_seem_to_fit_the_copy_is_not_tried_again() -> None:
    server = Server([make_table()])
    server.fails["direct"] = [MISFIT("no")]
    Written(server, [doc("a", 7), doc("b", 8)])
    assert len(server.of("direct")) == 1
    assert server.of("stage") == [(0, ["a", "b"])]


def test_what_a_table_holds_newer_is_refused_in_all_tables_with_the_highest_version() -> None:
    server = Server([make_table(0), make_table(1)])
    server.newer = {0: {0: 9, 1: 5}, 1: {0: 7, 1: 6}}
    written = Written(server, [doc("a"), doc("b"), doc("c")], first_pass=False)
    assert written.result.refused == {"a": 9, "b": 6}
    assert server.of("unstage") == [(0, [0, 1]), (1, [0, 1])]
    assert "move" in server.words()
    assert not written.writer.is_clean


def test_where_all_are_refused_nothing_is_moved() -> None:
    server = Server([make_table()])
    server.newer = {0: {0: 5, 1: 5}}
    Written(server, [doc("a"), doc("b")], first_pass=False)
    assert "move" not in server.words()


def test_all_staged_rows_are_moved_at_once() -> None:
    table = make_table()
    server = Server([table])
    Written(server, [doc("a"), doc("b", outputs=()), doc("c")], first_pass=False)
    moves = server.of("move")
    assert len(moves) == len(table.move(present=True, gone=True))
    assert all(
        parameters == {"low": 0, "high": 2, "first_pass": False, "rowless": [1]} for _, parameters in moves
    )
    assert "probe" not in server.words()
    assert "unstage" not in server.words()


@pytest.mark.parametrize(
    ("options", "outputs", "rowcount", "tombstoned"),
    [
        ({"many": True}, ("out0",), 0, True),
        ({}, ("out0",), 5, False),
        ({}, (), 0, False),
        ({}, (), 1, True),
        ({"deletes": "mark", "deleted_column": "gone_at"}, (), 0, True),
        ({"deletes": "mark", "deleted_column": "gone_at"}, ("out0",), 0, False),
    ],
)
def test_whether_write_versions_of_deleted_documents_may_be_stored_is_remembered(
    options: dict[str, Any], outputs: Sequence[str], rowcount: int, tombstoned: bool
) -> None:
    table = make_table(**options)
    server = Server([table])
    server.rowcount = rowcount
    Written(server, [doc("a", outputs=outputs)], first_pass=False)
    assert table.tombstoned is tombstoned


def test_it_is_never_forgotten_that_they_may_be() -> None:
    table = make_table()
    table.tombstoned = True
    server = Server([table])
    Written(server, [doc("a")], first_pass=False)
    assert table.tombstoned


def test_a_value_that_does_not_fit_is_found_by_the_probe_and_the_others_are_moved() -> None:
    table = make_table()
    server = Server([table])
    server.fails["move"] = [MISFIT("no")]
    server.misfits = [(1, "n", "22003", 'value "7777" is out of range')]
    written = Written(server, [doc("a"), doc("b", 7777)], first_pass=False)
    assert server.of("probe") == [(0, [0, 1])]
    assert server.of("unstage") == [(0, [1])]
    assert list(written.result.dead) == ["b"]
    assert written.result.dead["b"].startswith("Column n: ")
    assert "7777" not in written.result.dead["b"]
    assert table.precheck_values
    assert server.words()[-2:] == ["move", "keep"]
    assert not written.writer.is_clean


def test_once_values_are_checked_first_only_the_doubtful_ones_are_probed() -> None:
    table = make_table()
    table.precheck_values = True
    server = Server([table])
    server.misfits = [(1, "n", "22003", "no")]
    written = Written(server, [doc("a"), doc("b", 7777), doc("c", 7778)], first_pass=False)
    assert server.of("probe") == [(0, [1, 2])]
    assert list(written.result.dead) == ["b"]
    assert server.words()[-2:] == ["move", "keep"]


def test_where_no_value_is_doubtful_none_is_probed() -> None:
    table = make_table()
    table.precheck_values = True
    server = Server([table])
    Written(server, [doc("a")], first_pass=False)
    assert "probe" not in server.words()
    assert "move" in server.words()


def test_where_all_are_dead_or_refused_nothing_is_moved() -> None:
    table = make_table()
    table.precheck_values = True
    server = Server([table])
    server.newer = {0: {0: 5}}
    server.misfits = [(1, "n", "22003", "no")]
    written = Written(server, [doc("a"), doc("b", 7777)], first_pass=False)
    assert (list(written.result.refused), list(written.result.dead)) == (["a"], ["b"])
    assert "move" not in server.words()


def ranges(server: Server) -> list[tuple[int, int]]:
    """Return what was moved together, each once."""
    moved = [(parameters["low"], parameters["high"]) for _, parameters in server.of("move")]
    return [each for each, before in zip(moved, [None, *moved], strict=False) if each != before]


def test_what_no_probe_finds_is_found_by_halving() -> None:
    server = Server([make_table()])
    server.violates = {2}
    written = Written(server, [doc("a"), doc("b"), doc("c")], first_pass=False)
    assert written.result.dead == {"c": "no"}
    assert ranges(server) == [(0, 2), (0, 0), (1, 2), (1, 1), (2, 2)]
    assert server.words().count("undo") == 4
    assert not server.tables[0].precheck_values


def test_of_each_half_only_its_own_documents_are_named_without_rows() -> None:
    server = Server([make_table()])
    server.violates = {2}
    Written(server, [doc("a"), doc("b", outputs=()), doc("c")], first_pass=False)
    named = {(each["low"], each["high"]): each["rowless"] for _, each in server.of("move")}
    assert named == {(0, 2): [1], (0, 0): [], (1, 2): [1], (1, 1): [1], (2, 2): []}


def test_what_is_refused_beside_a_misfit_is_found_by_halving_too() -> None:
    server = Server([make_table()])
    server.fails["move"] = [MISFIT("no")]
    server.misfits = [(0, "n", "22003", "out of range")]
    server.violates = {1}
    written = Written(server, [doc("a"), doc("b"), doc("c")], first_pass=False)
    assert written.result.dead == {"a": "Column n: out of range", "b": "no"}
    assert ranges(server) == [(0, 2), (0, 0), (1, 2), (1, 1), (2, 2)]


def test_a_document_that_cannot_be_staged_is_found_by_halving() -> None:
    server = Server([make_table()])
    refused = errors.CharacterNotInRepertoire("no such character")
    server.fails["stage"] = [refused, None, refused]
    written = Written(server, [doc("a"), doc("b")], first_pass=False)
    assert server.of("stage") == [(0, ["a", "b"]), (0, ["a"]), (0, ["b"])]
    assert written.result.dead == {"b": "no such character"}


@pytest.mark.parametrize("word", ["direct", "stage", "move"])
def test_any_other_error_ends_the_batch(word: str) -> None:
    server = Server([make_table()])
    server.fails[word] = [errors.SerializationFailure("again")]
    with pytest.raises(psycopg.errors.SerializationFailure):
        Written(server, [doc("a")], first_pass=word == "direct")
    assert "undo" not in server.words()


def test_of_several_entries_of_a_document_the_newest_is_written() -> None:
    (encoded, other), dead = encode_batch(
        Batch(documents=[doc("b"), doc("a", 1, 2), doc("a", 9, 1)], epoch=3), [make_table()]
    )
    assert (encoded.document.id, other.document.id) == ("a", "b")
    assert encoded.write_version == write_version(3, 2)
    assert [len(lines) for lines in encoded.lines] == [1]
    assert encoded.lines[0][0].startswith(encoded.head)
    assert dead == {}


def test_others_get_their_turn_while_a_large_batch_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []
    monkeypatch.setattr(writer, "TURN_DOCUMENTS", 2)
    monkeypatch.setattr("gevent.sleep", turns.append)
    for count, expected in ((1, []), (2, [0]), (3, [0]), (4, [0, 0])):
        turns.clear()
        encode_batch(Batch(documents=[doc(str(n)) for n in range(count)], epoch=1), [make_table()])
        assert turns == expected


def test_a_document_that_can_never_be_encoded_is_dead_and_the_others_are_ready() -> None:
    encoded, dead = encode_batch(
        Batch(documents=[doc("a", version=MAX_LEAF_VERSION + 1), doc("b")], epoch=1), [make_table()]
    )
    assert [each.document.id for each in encoded] == ["b"]
    assert list(dead) == ["a"]
    assert "numbers of its revisions" in dead["a"]
